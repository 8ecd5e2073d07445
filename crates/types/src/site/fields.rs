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
    ],
};

pub const HASH_BY: Mapping = Mapping {
    name: "hash by",
    fields: &["header", "cookie"],
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
    fields: &["listen", "protocol", "pool"],
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

pub const ALL: [Mapping; 11] = [
    SITE,
    POOL,
    HASH_BY,
    MEMBER,
    MONITOR,
    HTTP_MONITOR,
    TCP_MONITOR,
    VIRTUAL_SERVER,
    TIMEOUTS,
    LIMITS,
    ADMIN,
];
