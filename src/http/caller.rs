//! Where a request comes from, as its headers tell. While nothing is configured, programs of this machine need no
//! token; neither the clients of a proxy nor the pages in a browser of this machine are such programs.

use std::net::IpAddr;

use warp::http::header::{HOST, HeaderMap, HeaderName, ORIGIN};

use crate::auth::service_token::Caller;

/// Headers that proxies add, beside every `X-Forwarded-…`.
const PROXY_HEADERS: [&str; 5] = [
    "forwarded",
    "via",
    "x-real-ip",
    "cf-connecting-ip",
    "true-client-ip",
];
/// Which site caused a request, as browsers tell (Fetch Metadata).
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The caller of a request from the loopback.
pub(super) fn caller(headers: &HeaderMap) -> Caller {
    if is_proxied(headers) {
        return Caller::Proxied;
    }
    let hosts = headers.get_all(HOST).iter();
    let mut hosts = hosts.map(|host| String::from_utf8_lossy(host.as_bytes()));
    // A page whose name resolves to the loopback is of the same origin as usher for its browser.
    if let Some(host) = hosts.find(|host| !is_this_machine(host)) {
        return Caller::OtherHost(host.into_owned());
    }
    if is_of_another_origin(headers) {
        return Caller::OtherOrigin;
    }
    Caller::Local
}

fn is_proxied(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| {
        let name = name.as_str();
        PROXY_HEADERS.contains(&name) || name.starts_with("x-forwarded-")
    })
}

/// Whether a `Host` names this machine: `localhost`, or an address of the loopback.
fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => host.split(':').next(),
    };
    let name = name.unwrap_or_default();
    let address = name.parse::<IpAddr>();
    address.map_or(name.eq_ignore_ascii_case("localhost"), |ip| {
        ip.to_canonical().is_loopback()
    })
}

/// Whether a page of another origin may have caused the request.
fn is_of_another_origin(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
    let mut origins = headers.get_all(ORIGIN).iter();
    let host = headers.get(HOST).map(|host| host.as_bytes());
    let is_own = |origin: &[u8]| {
        let authority = origin.strip_prefix(b"http://");
        let authority = authority.or(origin.strip_prefix(b"https://"));
        authority.is_some() && authority == host
    };
    // "none" is an address that a user entered.
    sites.any(|site| site != "same-origin" && site != "none")
        || origins.any(|origin| !is_own(origin.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(headers: &[(&'static str, &str)]) -> Caller {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        caller(&map)
    }

    #[test]
    fn program_of_this_machine_is_local() {
        for host in [
            "localhost",
            "LOCALHOST:8060",
            "127.0.0.1",
            "127.0.0.1:8060",
            "127.0.0.2",
            "[::1]",
            "[::1]:8060",
        ] {
            assert_eq!(from(&[("host", host)]), Caller::Local, "{host}");
            let own = format!("http://{host}");
            let page = [
                ("host", host),
                ("origin", &own),
                ("sec-fetch-site", "same-origin"),
            ];
            assert_eq!(from(&page), Caller::Local, "{host}");
        }
        // HTTP/1.0.
        assert_eq!(from(&[]), Caller::Local);
        let typed = [("host", "localhost"), ("sec-fetch-site", "none")];
        assert_eq!(from(&typed), Caller::Local);
    }

    #[test]
    fn name_that_resolves_to_the_loopback_is_another_host() {
        for host in [
            "meet.example.com",
            "localhost.example.com",
            "127.0.0.1.example.com:8060",
            "10.0.0.1",
            "[2001:db8::1]:8060",
            "",
            "localhost@evil.example",
        ] {
            let expected = Caller::OtherHost(host.to_owned());
            assert_eq!(from(&[("host", host)]), expected, "{host}");
        }
        let two = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(from(&two), Caller::OtherHost("evil.example".to_owned()));
    }

    #[test]
    fn page_of_another_origin_is_not_local() {
        for (name, value) in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("origin", "http://127.0.0.1:9000"),
            ("origin", "http://localhost:8060"),
            ("origin", "file://"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            let page = [("host", "127.0.0.1:8060"), (name, value)];
            assert_eq!(from(&page), Caller::OtherOrigin, "{name}: {value}");
        }
    }

    #[test]
    fn marks_of_proxies_are_recognized() {
        for name in [
            "via",
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-real-ip",
            "cf-connecting-ip",
            "true-client-ip",
        ] {
            let proxied = [("host", "127.0.0.1:8060"), (name, "x")];
            assert_eq!(from(&proxied), Caller::Proxied, "{name}");
        }
    }
}
