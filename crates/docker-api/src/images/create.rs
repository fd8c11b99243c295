//! `POST /images/create`: a pull from a registry, or an import of a root file system.

use std::sync::Arc;

use berth_image::distribution::Request;
use berth_image::{Import, Progress};
use http::StatusCode;

use super::{block, named, platform, publish};
use crate::auth;
use crate::call::Call;
use crate::error::Error;
use crate::pipe::Reader;
use crate::progress;
use crate::respond::Answer;

pub async fn create(call: Call) -> Answer {
    if call.query.some("fromImage").is_some() {
        return pull(call).await;
    }
    if call.query.some("fromSrc").is_some() {
        return import(call).await;
    }
    Err(Error::invalid("one of fromImage and fromSrc is needed"))
}

async fn pull(call: Call) -> Answer {
    let reference = named(call.query.text("fromImage"), call.query.text("tag"))?;
    let request = Request {
        reference: reference.clone(),
        platform: platform(&call)?,
        credentials: auth::credentials(auth::registry(&call.headers)),
    };
    let shared = Arc::clone(&call.shared);
    let scope = call.shared.scope.clone();
    progress::stream(&scope, move |reporter| async move {
        // Clients that mean `latest` say so; without a tag, all of them are meant.
        if reference.is_name_only() {
            shared.distribution.pull_all(&request, &reporter).await?;
        } else {
            shared.distribution.pull(&request, &reporter).await?;
        }
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

/// An archive of a root file system, plain or compressed, in the request's body.
async fn import(call: Call) -> Answer {
    if call.query.text("fromSrc") != "-" {
        return Err(Error::new(
            StatusCode::NOT_IMPLEMENTED,
            "importing from a URL is not supported: send the archive, with fromSrc=-",
        ));
    }
    let repository = call.query.text("repo");
    let name = match repository {
        "" => None,
        repository => Some(named(repository, call.query.text("tag"))?.or_latest()),
    };
    if name.as_ref().is_some_and(|name| name.digest().is_some()) {
        return Err(Error::invalid("cannot import digest reference"));
    }
    let import = Import {
        name,
        message: call.query.text("message").to_owned(),
        changes: call.query.all("changes").map(str::to_owned).collect(),
        platform: platform(&call)?,
    };
    let shared = Arc::clone(&call.shared);
    let scope = call.shared.scope.clone();
    let archive = Reader::new(&scope, call.body);
    progress::stream(&scope, move |reporter| async move {
        let id = block(&shared, move |images| images.import(archive, &import))
            .await?
            .to_string();
        reporter(Progress::status("", id.clone()));
        publish(&shared, "import", &id, &id);
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(image: &str, tag: &str, expect: Result<&str, &str>) {
        let got = named(image, tag).map(|reference| reference.familiar());
        assert_eq!(
            got.map_err(|e| e.message),
            expect.map(str::to_owned).map_err(str::to_owned)
        );
    }

    #[test]
    fn tags_and_digests_come_in_either_parameter() {
        let digest = format!("sha256:{}", "a".repeat(64));
        check("busybox", "", Ok("busybox"));
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
