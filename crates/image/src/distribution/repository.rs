//! One repository at one endpoint: its manifests and blobs over HTTP.

use std::time::Duration;

use berth_http::body::{ReadError, read};
use berth_http::client::FinalUri;
use berth_http::{Body, Client};
use berth_oci::manifest::MANIFEST_LIMIT;
use berth_oci::{Descriptor, Digest, media_type};
use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LINK, RANGE, USER_AGENT,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};

use super::Shared;
use super::auth::Authorizer;
use super::challenge::Challenge;
use super::failure::{Cause, Failure};
use super::refusal::Refusal;

/// How much of an error's body is read.
const ERROR_LIMIT_BYTES: usize = 64 << 10;

/// How much of one page of tags is read, and how many pages.
const TAGS_LIMIT_BYTES: usize = 4 << 20;
const TAG_PAGES: usize = 1000;
/// Of one repository: some have ten thousand.
const MAX_TAGS: usize = 100_000;

#[derive(serde::Deserialize)]
struct TagPage {
    tags: Option<Vec<String>>,
}

/// A repository as an endpoint serves it.
pub struct Repository {
    client: Client,
    /// `https://host[:port][/prefix]`
    base: String,
    path: String,
    authorizer: Authorizer,
    user_agent: HeaderValue,
    document_timeout: Duration,
}

/// A manifest's bytes, verified if it was asked for by digest.
#[derive(Debug, Clone)]
pub struct Fetched {
    pub bytes: Bytes,
    pub media_type: String,
    pub digest: Digest,
}

/// What a tag points at.
#[derive(Debug, Clone)]
pub enum Tagged {
    /// The registry named the digest without sending the manifest.
    Digest(Digest),
    Manifest(Fetched),
}

/// The rest of a blob.
pub struct BlobBody {
    pub body: Body,
    /// Where in the blob the body begins.
    pub start: u64,
    /// How long the whole blob is, as far as the registry says.
    pub total: Option<u64>,
}

impl Repository {
    pub fn new(
        client: Client,
        base: String,
        path: String,
        authorizer: Authorizer,
        config: &Shared,
    ) -> Self {
        Self {
            client,
            base,
            path,
            authorizer,
            user_agent: config.user_agent.clone(),
            document_timeout: config.config.document_timeout,
        }
    }

    /// Finds out whether a registry answers, and what it demands of its clients.
    pub async fn ping(&self) -> Result<(), Failure> {
        let uri = format!("{}/v2/", self.base);
        let response = self.once(Method::GET, &uri, HeaderMap::new(), None).await?;
        let challenges = Challenge::all(response.headers());
        self.authorizer.learn(&challenges, None).await;
        berth_http::body::discard(response.into_body()).await;
        Ok(())
    }

    /// Asks for `/v2/` with the credentials: the address that was asked, and what it answered.
    pub async fn knock(&self) -> Result<(String, StatusCode), Failure> {
        let uri = format!("{}/v2/", self.base);
        let response = self.request(Method::GET, &uri, HeaderMap::new()).await?;
        let status = response.status();
        berth_http::body::discard(response.into_body()).await;
        Ok((uri, status))
    }

    /// The refresh token that came with the authorization.
    pub async fn identity_token(&self) -> Option<String> {
        self.authorizer.identity_token().await
    }

    /// Where a tag points.
    ///
    /// Asks by HEAD first, which public registries do not count as a pull. A refusal of that has
    /// no body to tell the reason, so then it asks again by GET.
    pub async fn tag(&self, tag: &str) -> Result<Tagged, Failure> {
        let uri = self.uri("manifests", tag);
        let head = self.request(Method::HEAD, &uri, manifest_headers()).await?;
        if head.status().is_success()
            && let Some(digest) = content_digest(head.headers())
        {
            berth_http::body::discard(head.into_body()).await;
            return Ok(Tagged::Digest(digest));
        }
        self.manifest(tag, None).await.map(Tagged::Manifest)
    }

    /// All tags of the repository.
    pub async fn tags(&self) -> Result<Vec<String>, Failure> {
        let mut tags = Vec::new();
        let mut uri = format!("{}/v2/{}/tags/list", self.base, self.path);
        for _ in 0..TAG_PAGES {
            let response = self.request(Method::GET, &uri, HeaderMap::new()).await?;
            let response = self.expect_success(response).await?;
            let (head, body) = response.into_parts();
            let body = self.read(body, TAGS_LIMIT_BYTES).await;
            let broken = |cause: String| Failure::Broken {
                uri: uri.clone(),
                cause,
            };
            let body = body.map_err(|error| broken(berth_base::Chain(&error).to_string()))?;
            let page: TagPage =
                serde_json::from_slice(&body).map_err(|error| broken(error.to_string()))?;
            tags.extend(page.tags.unwrap_or_default());
            if tags.len() > MAX_TAGS {
                return Err(broken(format!("more than {MAX_TAGS} tags")));
            }
            match next_page(&self.base, &head.headers) {
                Some(next) => uri = next,
                None => break,
            }
        }
        Ok(tags)
    }

    /// The manifest with this digest.
    pub async fn manifest_by_digest(&self, digest: &Digest) -> Result<Fetched, Failure> {
        self.manifest(&digest.to_string(), Some(digest)).await
    }

    async fn manifest(&self, reference: &str, digest: Option<&Digest>) -> Result<Fetched, Failure> {
        let uri = self.uri("manifests", reference);
        let response = self.request(Method::GET, &uri, manifest_headers()).await?;
        let response = self.expect_success(response).await?;
        let (head, body) = response.into_parts();
        let media_type = head.headers.get(CONTENT_TYPE);
        let media_type = media_type.and_then(|value| value.to_str().ok());
        let media_type = media_type.unwrap_or_default().to_owned();
        let limit_bytes = MANIFEST_LIMIT;
        if content_length(&head.headers).is_some_and(|length| length > limit_bytes) {
            return Err(Failure::ManifestTooLarge { limit_bytes });
        }
        let limit = usize::try_from(limit_bytes).unwrap_or(usize::MAX);
        let bytes = match self.read(body, limit).await {
            Ok(bytes) => bytes,
            Err(ReadError::TooLong(_)) => {
                return Err(Failure::ManifestTooLarge { limit_bytes });
            }
            Err(ReadError::Broken(error)) => {
                let cause = error.to_string();
                return Err(Failure::Broken { uri, cause });
            }
        };
        let digest = match digest {
            Some(digest) if digest.matches(&bytes) => digest.clone(),
            Some(digest) => {
                return Err(Failure::Verification {
                    what: "manifest",
                    digest: digest.clone(),
                });
            }
            None => Digest::of(&bytes),
        };
        Ok(Fetched {
            bytes,
            media_type,
            digest,
        })
    }

    /// A blob from byte `offset` on.
    pub async fn blob(&self, descriptor: &Descriptor, offset: u64) -> Result<BlobBody, Failure> {
        let uri = self.uri("blobs", &descriptor.digest.to_string());
        let mut headers = HeaderMap::new();
        if offset > 0 {
            headers.insert(RANGE, range_from(offset));
        }
        let response = self.request(Method::GET, &uri, headers).await?;
        let response = self.expect_success(response).await?;
        let length = content_length(response.headers());
        let start = match response.status() {
            StatusCode::PARTIAL_CONTENT => range_start(response.headers()).unwrap_or(offset),
            // Not every server and proxy knows ranges: then all of it comes again.
            _ => 0,
        };
        if start > offset {
            return Err(Failure::Broken {
                uri,
                cause: format!("the registry goes on at byte {start} instead of {offset}"),
            });
        }
        Ok(BlobBody {
            body: response.into_body(),
            start,
            total: length.map(|length| start.saturating_add(length)),
        })
    }

    /// The URI of a blob, for messages.
    pub fn blob_uri(&self, digest: &Digest) -> String {
        self.uri("blobs", &digest.to_string())
    }

    fn uri(&self, kind: &str, reference: &str) -> String {
        format!("{}/v2/{}/{kind}/{reference}", self.base, self.path)
    }

    /// Sends an authorized request; answers a demand for other authorization once.
    async fn request(
        &self,
        method: Method,
        uri: &str,
        headers: HeaderMap,
    ) -> Result<Response<Body>, Failure> {
        let mut sent = self.authorization(&method, uri).await?;
        let response = self
            .once(method.clone(), uri, headers.clone(), sent.clone())
            .await?;
        if response.status() != StatusCode::UNAUTHORIZED || !same_host(uri, &response) {
            return Ok(response);
        }
        let challenges = Challenge::all(response.headers());
        if !self.authorizer.learn(&challenges, sent.as_ref()).await {
            return Ok(response);
        }
        berth_http::body::discard(response.into_body()).await;
        sent = self.authorization(&method, uri).await?;
        self.once(method, uri, headers, sent).await
    }

    async fn authorization(
        &self,
        method: &Method,
        uri: &str,
    ) -> Result<Option<HeaderValue>, Failure> {
        let header = self.authorizer.header(&self.client);
        let header = match tokio::time::timeout(self.document_timeout, header).await {
            Ok(header) => header,
            Err(_) => Err(Cause::Other(format!(
                "the token server took longer than {}",
                seconds(self.document_timeout)
            ))),
        };
        header.map_err(|cause| request_failure(method, uri, cause))
    }

    async fn once(
        &self,
        method: Method,
        uri: &str,
        mut headers: HeaderMap,
        authorization: Option<HeaderValue>,
    ) -> Result<Response<Body>, Failure> {
        headers.insert(USER_AGENT, self.user_agent.clone());
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, authorization);
        }
        let parsed: Uri = uri.parse().map_err(|_| {
            let cause = Cause::Other("not a URI".to_owned());
            request_failure(&method, uri, cause)
        })?;
        let response = self.client.fetch(method.clone(), parsed, headers).await;
        response.map_err(|error| request_failure(&method, uri, Cause::Transport(error)))
    }

    /// Reads a small document, however slowly it comes, within its time.
    async fn read(&self, body: Body, limit: usize) -> Result<Bytes, ReadError> {
        match tokio::time::timeout(self.document_timeout, read(body, limit)).await {
            Ok(read) => read,
            Err(_) => {
                let text = format!("it took longer than {}", seconds(self.document_timeout));
                Err(ReadError::Broken(text.into()))
            }
        }
    }

    async fn expect_success(&self, response: Response<Body>) -> Result<Response<Body>, Failure> {
        if response.status().is_success() {
            return Ok(response);
        }
        let (head, body) = response.into_parts();
        // What the reason is when its text cannot be read, the status still says.
        let body = self.read(body, ERROR_LIMIT_BYTES).await;
        let body = body.unwrap_or_default();
        Err(Failure::Refused(Refusal::read(
            head.status,
            &head.headers,
            &body,
        )))
    }
}

/// Where a list goes on: `Link: </v2/app/tags/list?last=x&n=100>; rel="next"`, on the same host.
fn next_page(base: &str, headers: &HeaderMap) -> Option<String> {
    let link = headers.get(LINK)?.to_str().ok()?;
    let (target, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    let base: Uri = base.parse().ok()?;
    let path = match target.starts_with('/') {
        true => target.to_owned(),
        false => target.parse::<Uri>().ok()?.path_and_query()?.to_string(),
    };
    let origin = (base.scheme_str()?, base.authority()?);
    rest.contains("next")
        .then(|| format!("{}://{}{path}", origin.0, origin.1))
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f32())
}

/// A method as Go's errors spell it.
pub fn go_name(method: &Method) -> &'static str {
    match *method {
        Method::HEAD => "Head",
        Method::POST => "Post",
        _ => "Get",
    }
}

fn request_failure(method: &Method, uri: &str, cause: Cause) -> Failure {
    Failure::Request {
        method: go_name(method),
        uri: uri.to_owned(),
        cause: Box::new(cause),
    }
}

fn manifest_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for kind in media_type::ACCEPTED_MANIFESTS {
        headers.append(ACCEPT, HeaderValue::from_static(kind));
    }
    headers
}

fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    let value = headers.get("docker-content-digest")?;
    value.to_str().ok()?.parse().ok()
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn range_from(offset: u64) -> HeaderValue {
    HeaderValue::try_from(format!("bytes={offset}-")).expect("digits are allowed in headers")
}

/// The first byte of `Content-Range: bytes 100-199/200`.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let range = value.strip_prefix("bytes ")?;
    range.split('-').next()?.trim().parse().ok()
}

/// Whether the answer is from the host that was asked, and not from where it redirected to.
fn same_host(uri: &str, response: &Response<Body>) -> bool {
    let asked: Option<Uri> = uri.parse().ok();
    let answered = response.extensions().get::<FinalUri>();
    match (asked, answered) {
        (Some(asked), Some(FinalUri(answered))) => asked.authority() == answered.authority(),
        _ => false,
    }
}
