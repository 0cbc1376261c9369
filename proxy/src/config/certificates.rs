//! The validity of the configuration's certificates, for `check` and the alarms.

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::Time;
use crate::language::{Text, text};

/// The time before a certificate expires from which it is warned about.
const AHEAD: Duration = Duration::from_secs(14 * 86_400);

/// One file of certificates: valid while all of them are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Validity {
    /// The key that names the file: `[gateway.tls] cert_file`.
    pub key: &'static str,
    /// From when on all of them are valid.
    pub from: Time,
    /// Until when all of them are.
    pub until: Time,
}

impl Validity {
    /// That of a file's certificates; none where a date cannot be read.
    pub(super) fn of(key: &'static str, certificates: &[CertificateDer<'_>]) -> Option<Self> {
        let dates = certificates.iter().map(|der| {
            let (_, parsed) = X509Certificate::from_der(der).ok()?;
            let validity = parsed.validity();
            Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
        });
        let dates: Vec<_> = dates.collect::<Option<_>>()?;
        let from = dates.iter().map(|(from, _)| *from).max()?;
        let until = dates.iter().map(|(_, until)| *until).min()?;
        Some(Self { key, from: Time::from_secs(from), until: Time::from_secs(until) })
    }

    /// Whether all certificates of the file are valid now.
    pub fn is_valid(&self, now: Time) -> bool {
        (self.from..=self.until).contains(&now)
    }

    /// The warning at this time; none while the certificates are valid for longer.
    pub fn warning(&self, now: Time) -> Option<Text> {
        let Self { key, from, until } = self;
        if now > *until {
            Some(text!(
                "{key}: a certificate expired at {until}, and handshakes fail: replace the file, which is read again when it \
                 changes",
                "{key}：有证书已于 {until} 过期，握手失败：请更换文件，代理会自动重新读取"
            ))
        } else if now < *from {
            Some(text!(
                "{key}: a certificate is not valid before {from}, and handshakes fail: replace the file, which is read again \
                 when it changes, or set the clock",
                "{key}：有证书在 {from} 之前无效，握手失败：请更换文件，代理会自动重新读取；或校正时钟"
            ))
        } else if now > until.minus(AHEAD) {
            Some(text!(
                "{key}: a certificate expires at {until}: replace the file, which is read again when it changes",
                "{key}：有证书将于 {until} 过期：请更换文件，代理会自动重新读取"
            ))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    #[test]
    fn a_file_is_valid_while_all_its_certificates_are() {
        let certificate = |from, until| {
            let mut params = CertificateParams::new(vec!["gw.example".to_owned()]).unwrap();
            (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1));
            params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
        };
        let valid = Validity::of("key", &[certificate(2020, 2060), certificate(2025, 2030)]).unwrap();
        // 2025-01-01 and 2030-01-01, UTC.
        let (from, until) = (Time::from_secs(1_735_689_600), Time::from_secs(1_893_456_000));
        assert_eq!((valid.from, valid.until), (from, until));
        let says = |now| valid.warning(now).unwrap_or_default().english;
        assert!(says(from.minus(Duration::from_secs(1))).contains("not valid before 2025-01-01"));
        assert_eq!(says(from), "");
        assert_eq!(says(until.minus(AHEAD)), "");
        assert!(valid.is_valid(until) && !valid.is_valid(until.plus(Duration::from_secs(1))));
        assert!(says(until).contains("expires at 2030-01-01"), "{}", says(until));
        assert!(says(until.plus(Duration::from_secs(1))).contains("expired at 2030-01-01"));
        assert_eq!(Validity::of("key", &[CertificateDer::from(vec![1, 2, 3])]), None);
    }
}
