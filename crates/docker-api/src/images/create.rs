//! `POST /images/create`: a pull from a registry, or an import of a root file system.

use std::sync::Arc;

use berth_image::distribution::{Credentials, Request};
use berth_oci::{Digest, Reference};

use super::{platform, publish};
use crate::auth;
use crate::call::Call;
use crate::error::Error;
use crate::progress;
use crate::respond::Answer;

pub async fn create(call: Call) -> Answer {
    if call.query.some("fromImage").is_some() {
        return pull(call).await;
    }
    Err(Error::invalid("one of fromImage and fromSrc is needed"))
}

async fn pull(call: Call) -> Answer {
    let reference = reference(call.query.text("fromImage"), call.query.text("tag"))?;
    let request = Request {
        reference: reference.clone(),
        platform: platform(&call)?,
        credentials: credentials(&call),
    };
    let shared = Arc::clone(&call.shared);
    let scope = call.shared.scope.clone();
    progress::stream(&scope, move |reporter| async move {
        shared.distribution.pull(&request, &reporter).await?;
        publish(
            &shared,
            "pull",
            &reference.familiar(),
            &reference.familiar_name(),
        );
        Ok(())
    })
    .await
}

/// The image that is meant: `latest` where there is neither a tag nor a digest.
fn reference(image: &str, tag: &str) -> Result<Reference, Error> {
    let named: Reference = image.parse()?;
    if tag.is_empty() {
        return Ok(named.or_latest());
    }
    match tag.parse::<Digest>() {
        Ok(digest) => Ok(named.with_digest(digest)),
        Err(_) => Ok(named.with_tag(tag)?),
    }
}

fn credentials(call: &Call) -> Credentials {
    let auth = auth::registry(&call.headers);
    if !auth.identitytoken.is_empty() {
        Credentials::Identity {
            token: auth.identitytoken,
        }
    } else if !auth.registrytoken.is_empty() {
        Credentials::Bearer {
            token: auth.registrytoken,
        }
    } else if !auth.username.is_empty() {
        Credentials::Password {
            user: auth.username,
            password: auth.password,
        }
    } else {
        Credentials::Anonymous
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(image: &str, tag: &str, expect: Result<&str, &str>) {
        let got = reference(image, tag).map(|reference| reference.familiar());
        assert_eq!(
            got.map_err(|e| e.message),
            expect.map(str::to_owned).map_err(str::to_owned)
        );
    }

    #[test]
    fn tags_and_digests_come_in_either_parameter() {
        let digest = format!("sha256:{}", "a".repeat(64));
        check("busybox", "", Ok("busybox:latest"));
        check("busybox:1", "", Ok("busybox:1"));
        check("busybox", "1", Ok("busybox:1"));
        check("busybox", &digest, Ok(&format!("busybox@{digest}")));
        check("localhost:5000/a/b", "c", Ok("localhost:5000/a/b:c"));
        check("busybox", "a b", Err("invalid tag format"));
        check(
            "LL",
            "",
            Err("invalid reference format: repository name (library/LL) must be lowercase"),
        );
    }
}
