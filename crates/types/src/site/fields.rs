//! Every field of a site file, by the mapping that it is in. The reader takes its names from here,
//! and a test compares them with `docs/reference/site.md`.

/// A mapping of the file: how the reference calls it, and its fields.
#[derive(Clone, Copy, Debug)]
pub struct Mapping {
    pub name: &'static str,
    pub fields: &'static [&'static str],
}

pub const SITE: Mapping = Mapping {
    name: "site",
    fields: &["pools", "virtual_servers", "timeouts", "limits", "admin"],
};

pub const POOL: Mapping = Mapping {
    name: "pool",
    fields: &[
        "method",
        "hash_by",
        "members_protocol",
        "members",
        "monitor",
        "tls",
    ],
};

pub const HASH_BY: Mapping = Mapping {
    name: "hash by",
    fields: &["header", "cookie"],
};

pub const MEMBERS_TLS: Mapping = Mapping {
    name: "tls of members",
    fields: &["verify", "server_name"],
};

pub const MEMBER: Mapping = Mapping {
    name: "member",
    fields: &["address", "weight"],
};

pub const MONITOR: Mapping = Mapping {
    name: "monitor",
    fields: &["http", "tcp"],
};

pub const HTTP_MONITOR: Mapping = Mapping {
    name: "http monitor",
    fields: &[
        "path", "host", "expect", "interval", "timeout", "rise", "fall",
    ],
};

pub const TCP_MONITOR: Mapping = Mapping {
    name: "tcp monitor",
    fields: &["interval", "timeout", "rise", "fall"],
};

pub const VIRTUAL_SERVER: Mapping = Mapping {
    name: "virtual server",
    fields: &["listen", "protocol", "pool", "tls"],
};

pub const TLS: Mapping = Mapping {
    name: "tls",
    fields: &[
        "certificates",
        "minimum_version",
        "alpn",
        "client_certificates",
    ],
};

pub const CERTIFICATE: Mapping = Mapping {
    name: "certificate",
    fields: &["certificate", "key", "ocsp"],
};

pub const CLIENT_CERTIFICATES: Mapping = Mapping {
    name: "client certificates",
    fields: &["ca", "required"],
};

pub const TIMEOUTS: Mapping = Mapping {
    name: "timeouts",
    fields: &["connect", "request_head", "keep_alive", "response", "idle"],
};

pub const LIMITS: Mapping = Mapping {
    name: "limits",
    fields: &["connections", "head_bytes", "headers"],
};

pub const ADMIN: Mapping = Mapping {
    name: "admin",
    fields: &["listen"],
};

pub const ALL: [Mapping; 15] = [
    SITE,
    POOL,
    HASH_BY,
    MEMBERS_TLS,
    MEMBER,
    MONITOR,
    HTTP_MONITOR,
    TCP_MONITOR,
    VIRTUAL_SERVER,
    TLS,
    CERTIFICATE,
    CLIENT_CERTIFICATES,
    TIMEOUTS,
    LIMITS,
    ADMIN,
];
