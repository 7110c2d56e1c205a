use super::*;
use proptest::prelude::*;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};

fn certificate() -> Vec<u8> {
    let mut params = CertificateParams::new(vec!["broker.example".to_owned()]).unwrap();
    let address = SanType::IpAddress("10.1.2.3".parse().unwrap());
    let uri = SanType::URI("urn:pump:7".try_into().unwrap());
    params.subject_alt_names.extend([address, uri]);
    params.distinguished_name = rcgen::DistinguishedName::new();
    for (kind, value) in [
        (DnType::CountryName, "DE"),
        (DnType::OrganizationName, "Plant, Ltd."),
        (DnType::CommonName, "pump 7"),
        (DnType::CustomDnType(vec![2, 5, 4, 5]), "08/15"),
    ] {
        params.distinguished_name.push(kind, value);
    }
    params.not_after = rcgen::date_time_ymd(2031, 3, 1);
    let key = KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().der().to_vec()
}

#[test]
fn reads_names_and_the_end_of_a_certificate() {
    let names = CertificateNames::read(&certificate()).unwrap();
    assert_eq!(names.common_name.as_deref(), Some("pump 7"));
    assert_eq!(
        names.distinguished_name,
        "2.5.4.5=08/15,CN=pump 7,O=Plant\\, Ltd.,C=DE"
    );
    assert_eq!(
        names.alternative_names,
        ["broker.example", "10.1.2.3", "urn:pump:7"]
    );
    // 2031-03-01T00:00:00Z, which is valid itself.
    assert_eq!(names.not_after, 1_930_089_600 + 1);
}

#[test]
fn reads_when_a_revocation_list_is_over() {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.key_usages = vec![rcgen::KeyUsagePurpose::CrlSign];
    let issuer = rcgen::Issuer::new(params, KeyPair::generate().unwrap());
    let list = rcgen::CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2020, 1, 1),
        next_update: rcgen::date_time_ymd(2031, 3, 1),
        crl_number: rcgen::SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&issuer).unwrap().der().to_vec();
    assert_eq!(next_update(&list), Some(1_930_089_600 + 1));
    for len in 0..list.len() {
        assert_eq!(next_update(&list[..len]), None);
    }
    assert_eq!(next_update(&certificate()), None);
}

#[test]
fn times_are_those_of_the_calendar() {
    for (tag, text, expected) in [
        (UTC_TIME, "700101000000Z", 0),
        (UTC_TIME, "491231235959Z", 2_524_607_999),
        (UTC_TIME, "500101000000Z", -631_152_000),
        (GENERALIZED_TIME, "20000229120000Z", 951_825_600),
        (GENERALIZED_TIME, "99991231235959Z", 253_402_300_799),
    ] {
        assert_eq!(time(tag, text.as_bytes()), Some(expected), "{text}");
    }
    for text in [
        "7001010000Z",
        "701301000000Z",
        "70010100000Z",
        "+00101000000Z",
        "",
    ] {
        assert_eq!(time(UTC_TIME, text.as_bytes()), None, "{text}");
    }
}

#[test]
fn every_beginning_of_a_certificate_is_refused() {
    let whole = certificate();
    for len in 0..whole.len() {
        assert_eq!(CertificateNames::read(&whole[..len]), None);
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        let _ = CertificateNames::read(&bytes);
        let _ = next_update(&bytes);
    }

    #[test]
    fn no_changed_certificate_makes_it_panic(changes: Vec<(prop::sample::Index, u8)>) {
        let mut bytes = certificate();
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = CertificateNames::read(&bytes);
    }
}
