//! Following redirects, for requests without a body.

use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};

use super::Client;
use crate::body::Body;
use crate::error::Error;

/// Redirects that are followed before giving up; as Go's client.
const LIMIT: usize = 10;

/// Where the response came from in the end; an extension of what [`Client::fetch`] returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinalUri(pub Uri);

impl Client {
    /// Sends a request without a body and follows redirects, to `http` and `https` only.
    ///
    /// Credentials stay with the host that they were meant for, and are not sent in the clear
    /// after they were sent encrypted.
    pub async fn fetch(
        &self,
        method: Method,
        uri: Uri,
        headers: HeaderMap,
    ) -> Result<Response<Body>, Error> {
        let mut uri = uri;
        let mut headers = headers;
        for _ in 0..=LIMIT {
            let mut request = Request::new(crate::body::empty());
            *request.method_mut() = method.clone();
            *request.uri_mut() = uri.clone();
            *request.headers_mut() = headers.clone();
            let mut response = self.send(request).await?;
            let Some(target) = target(&uri, &response)? else {
                response.extensions_mut().insert(FinalUri(uri));
                return Ok(response);
            };
            crate::body::discard(response.into_body()).await;
            if !keeps_credentials(&uri, &target) {
                headers.remove(header::AUTHORIZATION);
                headers.remove(header::COOKIE);
            }
            uri = target;
        }
        Err(Error::Redirects(LIMIT))
    }
}

/// Where the response sends us, if it does.
fn target(uri: &Uri, response: &Response<Body>) -> Result<Option<Uri>, Error> {
    let redirects = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    if !redirects {
        return Ok(None);
    }
    let Some(location) = response.headers().get(header::LOCATION) else {
        return Ok(None);
    };
    let location = String::from_utf8_lossy(location.as_bytes());
    let bad = |reason| Error::Uri {
        uri: location.to_string(),
        reason,
    };
    let target = join(uri, &location).ok_or_else(|| bad("not a URI"))?;
    match target.scheme_str() {
        Some("http" | "https") => Ok(Some(target)),
        _ => Err(bad("unsupported protocol scheme")),
    }
}

/// Resolves a reference against the URI it was found at (RFC 3986 section 5.2, without dot segments,
/// which no registry sends).
fn join(base: &Uri, reference: &str) -> Option<Uri> {
    let reference = reference.split('#').next().unwrap_or(reference);
    let scheme = base.scheme_str()?;
    let authority = base.authority()?.as_str();
    let has_scheme = reference.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    });
    let text = if has_scheme {
        // `file:///x` has no authority, which the type Uri cannot hold.
        if let Some((scheme, _)) = reference.split_once(':')
            && !matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https")
        {
            return format!("{scheme}://localhost/").parse().ok();
        }
        reference.to_owned()
    } else if reference.starts_with("//") {
        format!("{scheme}:{reference}")
    } else if reference.starts_with('/') {
        format!("{scheme}://{authority}{reference}")
    } else if reference.starts_with('?') {
        format!("{scheme}://{authority}{}{reference}", base.path())
    } else {
        let directory = base
            .path()
            .rsplit_once('/')
            .map_or("", |(parent, _)| parent);
        format!("{scheme}://{authority}{directory}/{reference}")
    };
    text.parse().ok()
}

/// Whether credentials for `from` may also be shown to `to`.
fn keeps_credentials(from: &Uri, to: &Uri) -> bool {
    let port = |uri: &Uri| {
        let default = if uri.scheme_str() == Some("https") {
            443
        } else {
            80
        };
        uri.port_u16().unwrap_or(default)
    };
    from.host() == to.host() && from.scheme() == to.scheme() && port(from) == port(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_resolved_against_their_base() {
        let check = |reference: &str, expect: &str| {
            let base = "https://a.example:5000/v2/x/blobs/y?q=1".parse().unwrap();
            let joined = join(&base, reference).map(|uri| uri.to_string());
            assert_eq!(joined.as_deref(), Some(expect), "{reference}");
        };
        check("https://b.example/z", "https://b.example/z");
        check("//b.example/z", "https://b.example/z");
        check("/z?k=v#part", "https://a.example:5000/z?k=v");
        check("z", "https://a.example:5000/v2/x/blobs/z");
        check("?k=v", "https://a.example:5000/v2/x/blobs/y?k=v");
        check("file:///etc/passwd", "file://localhost/");
    }

    #[test]
    fn credentials_stay_with_their_host() {
        let check = |from: &str, to: &str, expect: bool| {
            let kept = keeps_credentials(&from.parse().unwrap(), &to.parse().unwrap());
            assert_eq!(kept, expect, "{from} {to}");
        };
        check("https://a/x", "https://a:443/y", true);
        check("https://a/x", "https://b/y", false);
        check("https://a/x", "http://a/y", false);
        check("http://a/x", "http://a:5000/y", false);
    }
}
