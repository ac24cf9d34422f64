//! Which upstream a request goes to. Pure.

use crate::config::model::{Listener, UpstreamIndex};
use crate::h1::RequestHead;

/// The upstream of the first route that fits, in the order of [`Listener::routes`], else the listener's own.
pub(super) fn route(listener: &Listener, head: &RequestHead) -> UpstreamIndex {
    if listener.routes.is_empty() {
        return listener.upstream;
    }
    let host = head.host();
    let fits_host =
        |wanted: &Option<String>| wanted.as_ref().is_none_or(|wanted| wanted.as_bytes().eq_ignore_ascii_case(host));
    // "/" is every path, also where the target has none: `OPTIONS *`, CONNECT.
    let fits_path = |path: &str| path == "/" || head.target.starts_with(path.as_bytes());
    listener
        .routes
        .iter()
        .find(|route| fits_host(&route.host) && fits_path(&route.path))
        .map_or(listener.upstream, |route| route.upstream)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::config::model::Route;
    use crate::h1::{Limits, RequestParser};

    fn head(method: &str, host: &str, target: &str) -> RequestHead {
        let mut bytes = BytesMut::from(format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        let limits = Limits { head: 1000, fields: 10, target: 1000, content: 0 };
        RequestParser::new().parse(&mut bytes, &limits).unwrap().unwrap()
    }

    fn to(host: Option<&str>, path: &str, upstream: usize) -> Route {
        Route { host: host.map(str::to_owned), path: path.to_owned(), upstream: UpstreamIndex(upstream) }
    }

    fn listener(routes: Vec<Route>) -> Listener {
        Listener {
            name: "web".into(),
            address: Vec::new(),
            upstream: UpstreamIndex(0),
            pipeline_depth: 16,
            accept_proxy_protocol: false,
            trusted_proxies: Vec::new(),
            routes,
            allow_connect: true,
        }
    }

    #[test]
    fn the_longest_host_and_then_the_longest_path_decide() {
        let listener = listener(vec![
            to(Some("img.example.org"), "/static/", 1),
            to(None, "/static/big/", 2),
            to(None, "/static/", 3),
        ]);
        let upstream = |host, target| route(&listener, &head("GET", host, target)).0;
        assert_eq!(upstream("IMG.example.org:8080", "/static/big/a"), 1);
        assert_eq!(upstream("example.org", "/static/big/a"), 2);
        assert_eq!(upstream("example.org", "/static/a?b"), 3);
        assert_eq!(upstream("img.example.org", "/dynamic"), 0);
    }

    #[test]
    fn a_target_without_a_path_fits_a_route_of_every_path() {
        let listener = listener(vec![to(Some("a.example"), "/static/", 1), to(Some("a.example"), "/", 2)]);
        assert_eq!(route(&listener, &head("OPTIONS", "a.example", "*")).0, 2);
        assert_eq!(route(&listener, &head("CONNECT", "a.example:443", "a.example:443")).0, 2);
        assert_eq!(route(&listener, &head("GET", "a.example", "/x")).0, 2);
        assert_eq!(route(&listener, &head("OPTIONS", "b.example", "*")).0, 0);
    }
}
