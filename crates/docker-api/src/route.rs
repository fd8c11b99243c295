//! Which handler a method and a path reach.

use std::future::Future;
use std::pin::Pin;

use http::Method;
use percent_encoding::percent_decode_str;

use crate::call::Call;
use crate::respond::Answer;

pub type Handler = fn(Call) -> Pin<Box<dyn Future<Output = Answer> + Send>>;

/// One operation: a method, a path, and what answers.
pub struct Route {
    pub method: Method,
    /// A path without the version. `{}` stands for a name, which may contain slashes, since
    /// images' names do.
    pub path: &'static str,
    pub handler: Handler,
}

/// The first route that matches, and the name that stands for its `{}`. A method that the path
/// does not have is as unknown as the path.
pub fn find<'a>(routes: &'a [Route], method: &Method, path: &str) -> Option<(&'a Route, String)> {
    routes
        .iter()
        .filter(|route| route.method == *method)
        .find_map(|route| {
            let name = match_path(route.path, path)?;
            Some((
                route,
                percent_decode_str(name).decode_utf8_lossy().into_owned(),
            ))
        })
}

fn match_path<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    match pattern.split_once("{}") {
        None => (pattern == path).then_some(""),
        Some((before, after)) => path
            .strip_prefix(before)?
            .strip_suffix(after)
            .filter(|name| !name.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_have_slashes() {
        assert_eq!(
            match_path("/images/{}/json", "/images/a/b:c/json"),
            Some("a/b:c")
        );
        assert_eq!(match_path("/images/{}/json", "/images//json"), None);
        assert_eq!(match_path("/images/{}/json", "/images/json"), None);
        assert_eq!(match_path("/images/json", "/images/json"), Some(""));
        assert_eq!(match_path("/images/{}", "/images/a/b"), Some("a/b"));
    }
}
