//! TLS errors for people.

use std::io;

use rustls::{AlertDescription, CertificateError};

/// What went wrong, in the words of Go's TLS, which docker's users know.
pub fn words(error: &rustls::Error) -> String {
    use CertificateError as C;
    let reason = match error {
        rustls::Error::InvalidCertificate(reason) => match reason {
            C::UnknownIssuer => "certificate signed by unknown authority".to_owned(),
            C::Expired
            | C::ExpiredContext { .. }
            | C::NotValidYet
            | C::NotValidYetContext { .. } => {
                "certificate has expired or is not yet valid".to_owned()
            }
            C::NotValidForName => "certificate is valid for other names".to_owned(),
            C::NotValidForNameContext {
                expected,
                presented,
            } => {
                let names: Vec<String> = presented.iter().map(|name| bare_name(name)).collect();
                format!(
                    "certificate is valid for {}, not {}",
                    names.join(", "),
                    expected.to_str()
                )
            }
            other => format!("{other}"),
        },
        rustls::Error::AlertReceived(alert) => {
            return format!("remote error: tls: {}", alert_words(*alert));
        }
        other => return format!("tls: {other}"),
    };
    format!("tls: failed to verify certificate: x509: {reason}")
}

/// `DnsName("a.example")` and `IpAddress(10.0.0.1)` as their content.
fn bare_name(name: &str) -> String {
    let inner = name.split_once('(').map_or(name, |(_, rest)| rest);
    inner.trim_end_matches(')').trim_matches('"').to_owned()
}

fn alert_words(alert: AlertDescription) -> String {
    if alert == AlertDescription::UnknownCA {
        return "unknown certificate authority".to_owned();
    }
    // `CertificateRequired` becomes `certificate required`.
    let mut words = String::new();
    for character in format!("{alert:?}").chars() {
        if character.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(character.to_ascii_lowercase());
    }
    words
}

/// The TLS error that is behind another one.
pub fn behind<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        let io = error.downcast_ref::<io::Error>();
        // An io::Error passes over what it wraps when it is asked for its source.
        if let Some(inner) = io.and_then(|error| error.get_ref()?.downcast_ref()) {
            return Some(inner);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_told_as_go_tells_them() {
        let check = |alert, words: &str| {
            assert_eq!(super::words(&rustls::Error::AlertReceived(alert)), words);
        };
        check(
            AlertDescription::UnknownCA,
            "remote error: tls: unknown certificate authority",
        );
        check(
            AlertDescription::CertificateRequired,
            "remote error: tls: certificate required",
        );
    }
}
