//! TLS with clients and with members.

use super::{Protocol, bounds, fields};
use crate::document::reader::At;
use crate::problem::{Sink, quote};
use crate::site::tls::SYSTEM_AUTHORITIES;
use crate::site::{Certificate, ClientCertificates, FileName, MembersTls, Tls, TlsVersion, Verify};

/// What a virtual server of HTTP offers.
const HTTP_ALPN: [&str; 2] = ["h2", "http/1.1"];

/// `protocol`: `None` if it is wrong itself.
pub(super) fn server(at: &At<'_>, protocol: Option<Protocol>, sink: &mut Sink) -> Option<Tls> {
    const WHAT: &str = "the TLS of a virtual server";
    let tls = at.object(sink, WHAT, fields::TLS.fields)?;
    let allowed = "[{ certificate: FILE, key: FILE }, ...]";
    let certificates = tls
        .required(sink, "certificates", WHAT, allowed)
        .and_then(|at| certificates(at, sink));
    let minimum_version = match tls.optional("minimum_version") {
        None => Some(TlsVersion::Tls12),
        Some(at) => {
            let words = TlsVersion::ALL.map(|version| (version.name(), version));
            at.word(sink, "a version of TLS", &words)
        }
    };
    let alpn = match (tls.optional("alpn"), protocol) {
        (None, Some(Protocol::Http)) => Some(HTTP_ALPN.map(str::to_owned).to_vec()),
        (None, _) => Some(Vec::new()),
        (Some(at), Some(Protocol::Http)) => {
            let message = "what a virtual server of HTTP offers follows from its protocol";
            let problem = at.problem("alpn", message);
            sink.add(problem.hint("leave it out: it is h2 and http/1.1"));
            None
        }
        (Some(at), _) => alpn(at, sink),
    };
    let clients = tls
        .optional("client_certificates")
        .map(|at| client_certificates(at, sink));
    Some(Tls {
        certificates: certificates?,
        minimum_version: minimum_version?,
        alpn: alpn?,
        client_certificates: match clients {
            None => None,
            Some(clients) => Some(clients?),
        },
    })
}

pub(super) fn members(at: &At<'_>, sink: &mut Sink) -> Option<MembersTls> {
    let tls = at.object(sink, "the TLS of a pool", fields::MEMBERS_TLS.fields)?;
    let verify = match tls.optional("verify") {
        None => Some(Verify::System(FileName {
            path: SYSTEM_AUTHORITIES.to_owned(),
            mark: at.mark(),
            field: at.path.clone(),
        })),
        Some(at) => file(at, "the authorities", sink).map(|file| match file.path.as_str() {
            "system" => Verify::System(FileName {
                path: SYSTEM_AUTHORITIES.to_owned(),
                ..file
            }),
            _ => Verify::File(file),
        }),
    };
    let server_name = tls.optional("server_name").map(|at| server_name(at, sink));
    Some(MembersTls {
        verify: verify?,
        server_name: match server_name {
            None => None,
            Some(name) => Some(name?),
        },
    })
}

fn certificates(at: &At<'_>, sink: &mut Sink) -> Option<Vec<Certificate>> {
    let items = at.items(sink, "certificates", bounds::CERTIFICATES_MAX)?;
    let read: Vec<_> = items.iter().map(|item| certificate(item, sink)).collect();
    read.into_iter().collect()
}

fn certificate(at: &At<'_>, sink: &mut Sink) -> Option<Certificate> {
    const WHAT: &str = "a certificate";
    let one = at.object(sink, WHAT, fields::CERTIFICATE.fields)?;
    let certificate = one
        .required(sink, "certificate", WHAT, "the name of a PEM file")
        .and_then(|at| file(at, "the certificate", sink));
    let key = one
        .required(sink, "key", WHAT, "the name of a PEM file")
        .and_then(|at| file(at, "the key", sink));
    let ocsp = one
        .optional("ocsp")
        .map(|at| file(at, "the OCSP response", sink));
    Some(Certificate {
        certificate: certificate?,
        key: key?,
        ocsp: match ocsp {
            None => None,
            Some(ocsp) => Some(ocsp?),
        },
    })
}

fn client_certificates(at: &At<'_>, sink: &mut Sink) -> Option<ClientCertificates> {
    const WHAT: &str = "the setting of client certificates";
    let clients = at.object(sink, WHAT, fields::CLIENT_CERTIFICATES.fields)?;
    let ca = clients
        .required(sink, "ca", WHAT, "the name of a PEM file")
        .and_then(|at| file(at, "the authorities", sink));
    let required = match clients.optional("required") {
        None => Some(true),
        Some(at) => at.word(sink, "a yes or no", &[("true", true), ("false", false)]),
    };
    Some(ClientCertificates {
        ca: ca?,
        required: required?,
    })
}

fn file(at: &At<'_>, what: &str, sink: &mut Sink) -> Option<FileName> {
    let allowed = "the name of a PEM file";
    let text = at.text(sink, what, allowed)?;
    if text.is_empty() || text.len() > bounds::FILE_NAME_MAX || text.contains('\0') {
        let problem = at.problem("file-name", "this is no name of a file");
        sink.add(problem.found(quote(text)).allowed(allowed));
        return None;
    }
    Some(FileName {
        path: text.to_owned(),
        mark: at.mark(),
        field: at.path.clone(),
    })
}

fn alpn(at: &At<'_>, sink: &mut Sink) -> Option<Vec<String>> {
    let items = at.items(sink, "protocols", bounds::ALPN_MAX)?;
    let mut names = Vec::new();
    for item in &items {
        let allowed = "a name of 1 to 255 visible characters, for example `postgresql`";
        let text = item.text(sink, "a protocol", allowed)?;
        let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.is_empty() || text.len() > bounds::ALPN_BYTES_MAX || !is_visible {
            let problem = item.problem("alpn", "this is no name of a protocol");
            sink.add(problem.found(quote(text)).allowed(allowed));
            return None;
        }
        names.push(text.to_owned());
    }
    Some(names)
}

/// A DNS name, or an IP address.
fn server_name(at: &At<'_>, sink: &mut Sink) -> Option<String> {
    let allowed = "a host name or an IP address, for example `api.example.com`";
    let text = at.text(sink, "a server name", allowed)?;
    let is_address = text.parse::<core::net::IpAddr>().is_ok();
    let is_label = |label: &str| {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        (1..=63).contains(&label.len()) && label.chars().all(good) && !label.starts_with('-')
    };
    let is_host = text.len() <= 253 && text.split('.').all(is_label);
    if is_address || is_host {
        return Some(text.to_owned());
    }
    let problem = at.problem("host", "this is no name of a server");
    sink.add(problem.found(quote(text)).allowed(allowed));
    None
}
