//! From a file's bytes to a [`Site`], or to everything that is wrong with them.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet};

use super::{
    HashBy, Method, Monitor, Name, Pool, PoolIndex, Protocol, Site, VirtualServer, bounds, fields,
};
use crate::document::reader::{At, Entry};
use crate::document::{self, Bounds, Mark};
use crate::problem::{Problem, Problems, Sink, quote};
use crate::suggest::closest;

mod pool;
mod settings;
mod tls;

const BOUNDS: Bounds = Bounds {
    bytes_max: bounds::FILE_BYTES_MAX,
    depth_max: bounds::DEPTH_MAX,
    nodes_max: bounds::NODES_MAX,
};

impl Site {
    /// Reads a site file: YAML, or JSON. `file` is its name for messages.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, Problems> {
        Self::check(file, bytes).map(|(site, _)| site)
    }

    /// Like [`parse`](Self::parse), with what is odd in a file that is right. `None`: nothing is.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn check(file: &str, bytes: &[u8]) -> Result<(Self, Option<Problems>), Problems> {
        let mut sink = Sink::default();
        let site = document::parse(bytes, BOUNDS, &mut sink)
            .and_then(|root| read_site(&At::root(&root), &mut sink));
        sink.finish(site, file, bytes)
    }
}

fn read_site(root: &At<'_>, sink: &mut Sink) -> Option<Site> {
    let site = root.object(sink, "a site", fields::SITE.fields)?;
    let allowed = "a mapping from names to pools";
    let pools = site
        .required(sink, "pools", "a site", allowed)
        .and_then(|at| read_pools(at, sink));
    let allowed = "a mapping from names to virtual servers";
    let mut listeners = Vec::new();
    let mut used = BTreeSet::new();
    let servers = site
        .required(sink, "virtual_servers", "a site", allowed)
        .and_then(|at| read_servers(at, pools.as_ref(), &mut listeners, &mut used, sink));
    let timeouts = settings::timeouts(site.optional("timeouts"), sink);
    let limits = settings::limits(site.optional("limits"), sink);
    let admin = site
        .optional("admin")
        .map(|at| settings::admin(at, &mut listeners, sink));
    if let Some(pools) = &pools {
        check_addresses(listeners, &pools.members, &used, sink);
        for (name, key, path) in &pools.places {
            if !used.contains(name.as_str()) {
                let message = format!("no virtual server uses the pool {}", quote(name.as_str()));
                sink.warn(Problem::at(*key, path.clone(), "unused-pool", message));
            }
        }
    }
    Some(Site {
        pools: pools?.found.into_values().flatten().collect(),
        virtual_servers: servers?,
        timeouts: timeouts?,
        limits: limits?,
        admin: match admin {
            None => None,
            Some(admin) => Some(admin?),
        },
    })
}

/// An address and the place that a problem with it is shown at.
struct Address {
    address: SocketAddr,
    /// What has it, for a message; of a member the pool's name.
    owner: String,
    mark: Mark,
    path: String,
}

/// Pools by name. `None` for one that has an error of its own: references to it are good all the
/// same.
struct Pools {
    found: BTreeMap<Name, Option<Pool>>,
    /// Names that cannot be one: a reference to one of them is no second problem.
    refused: BTreeSet<String>,
    /// Where each name is written.
    places: Vec<(Name, Mark, String)>,
    /// Places of the members' addresses, for the check that no pool leads back to us.
    members: Vec<Address>,
}

fn read_pools(at: &At<'_>, sink: &mut Sink) -> Option<Pools> {
    let entries = at.entries(sink, "the pools", bounds::POOLS_MAX)?;
    let mut pools = Pools {
        found: BTreeMap::new(),
        refused: BTreeSet::new(),
        places: Vec::new(),
        members: Vec::new(),
    };
    for entry in &entries {
        let name = name(entry, "a pool", sink);
        // One whose name cannot be is read all the same, for what else is wrong in it.
        let called = name.clone().unwrap_or(Name(entry.key.text.clone()));
        let pool = pool::read(called, &entry.at, &mut pools.members, sink);
        let Some(name) = name.filter(|_| !entry.is_repeated) else {
            pools.refused.insert(entry.key.text.clone());
            continue;
        };
        let path = entry.at.path.clone();
        pools.places.push((name.clone(), entry.key.mark, path));
        pools.found.insert(name, pool);
    }
    Some(pools)
}

fn read_servers(
    at: &At<'_>,
    pools: Option<&Pools>,
    listeners: &mut Vec<Address>,
    used: &mut BTreeSet<String>,
    sink: &mut Sink,
) -> Option<Vec<VirtualServer>> {
    let what = "the virtual servers";
    let entries = at.entries(sink, what, bounds::VIRTUAL_SERVERS_MAX)?;
    if entries.is_empty() {
        let problem = at.problem("wrong-length", "a site needs a virtual server");
        sink.add(problem.allowed("NAME: { listen: ADDRESS:PORT, protocol: http, pool: POOL }"));
        return None;
    }
    let mut servers: Vec<_> = entries
        .iter()
        .filter_map(|entry| read_server(entry, pools, listeners, used, sink))
        .collect();
    servers.sort_by(|a, b| a.name.cmp(&b.name));
    Some(servers)
}

fn read_server(
    entry: &Entry<'_>,
    pools: Option<&Pools>,
    listeners: &mut Vec<Address>,
    used: &mut BTreeSet<String>,
    sink: &mut Sink,
) -> Option<VirtualServer> {
    const WHAT: &str = "a virtual server";
    let name = name(entry, WHAT, sink).filter(|_| !entry.is_repeated);
    let server = entry.at.object(sink, WHAT, fields::VIRTUAL_SERVER.fields)?;
    let listen = server
        .required(sink, "listen", WHAT, "address:port")
        .and_then(|at| Some((at, listen_address(at, "the listen address", sink)?)))
        .map(|(at, address)| {
            let owner = match entry.key.text.as_str() {
                "" => "the virtual server without a name".to_owned(),
                name => format!("virtual server {}", quote(name)),
            };
            listeners.push(Address::new(address, owner, at));
            address
        });
    let protocol = server
        .required(sink, "protocol", WHAT, "http, tcp")
        .and_then(|at| {
            let words = Protocol::ALL.map(|p| (p.name(), p));
            at.word_or(sink, "a protocol", &words, protocol_hint)
        });
    let pool = server
        .required(sink, "pool", WHAT, "the name of a pool")
        .and_then(|at| {
            let index = pool_index(at, pools?, used, sink)?;
            let pool = pools?.found.values().nth(index.0)?.as_ref();
            let is_blind = protocol == Some(Protocol::Tcp);
            if pool.is_some_and(|pool| is_blind && pool.hash_by != HashBy::Source) {
                let message = "this pool chooses by what only a request has";
                let problem = at.problem("hash-by", message).allowed("hash_by: source");
                sink.add(problem.hint("a virtual server with `protocol: tcp` sees no requests"));
            }
            Some(index)
        });
    let tls = server
        .optional("tls")
        .map(|at| tls::server(at, protocol, sink));
    Some(VirtualServer {
        name: name?,
        listen: listen?,
        protocol: protocol?,
        pool: pool?,
        tls: match tls {
            None => None,
            Some(tls) => Some(tls?),
        },
    })
}

/// What to do about a protocol that is known elsewhere.
fn protocol_hint(word: &str) -> Option<&'static str> {
    match word.to_ascii_lowercase().as_str() {
        "https" | "tls" | "ssl" | "wss" => {
            Some("TLS is the field `tls` of the virtual server, beside `http` or `tcp`")
        }
        "http1" | "http2" | "h2" | "h2c" | "http/1.1" | "http/2" => {
            Some("`http` serves HTTP/1.1 and HTTP/2, as the client begins")
        }
        "udp" => Some("UDP is not served yet"),
        _ => None,
    }
}

/// An address that can be listened on.
fn listen_address(at: &At<'_>, what: &str, sink: &mut Sink) -> Option<SocketAddr> {
    let address = at.address(sink, what)?;
    if stands_for_several(address.ip()) {
        let message = format!("{what} stands for several machines: nobody can connect to it");
        let problem = at.problem("address", message);
        sink.add(problem.found(quote(&address.to_string())));
        return None;
    }
    Some(address)
}

/// A multicast or broadcast address.
fn stands_for_several(ip: IpAddr) -> bool {
    ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST)
}

fn pool_index(
    at: &At<'_>,
    pools: &Pools,
    used: &mut BTreeSet<String>,
    sink: &mut Sink,
) -> Option<PoolIndex> {
    let text = at.text(sink, "the name of a pool", "the name of a pool")?;
    used.insert(text.to_owned());
    let position = pools.found.keys().position(|name| name.as_str() == text);
    if position.is_none() && !pools.refused.contains(text) {
        let names = || pools.found.keys().map(Name::as_str);
        let mut problem = at
            .problem("unknown-pool", format!("there is no pool {}", quote(text)))
            .allowed(some_of(names()));
        if let Some(meant) = closest(text, names()) {
            problem = problem.hint(format!("did you mean `{meant}`?"));
        }
        sink.add(problem);
    }
    position.map(PoolIndex)
}

/// Names for a message: as many as fit in a line.
fn some_of<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const SHOWN: usize = 8;
    let names: Vec<&str> = names.collect();
    match names.len() {
        0 => "no pool is written".to_owned(),
        count if count <= SHOWN => names.join(", "),
        count => format!("{} and {} more", names[..SHOWN].join(", "), count - SHOWN),
    }
}

fn name(entry: &Entry<'_>, what: &str, sink: &mut Sink) -> Option<Name> {
    let text = &entry.key.text;
    let good_first = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if good_first && text.len() <= bounds::NAME_MAX && text.chars().all(good) {
        return Some(Name(text.clone()));
    }
    let message = format!("{} cannot be the name of {what}", quote(text));
    let allowed = format!(
        "1 to {} letters, digits, `-`, `_`, `.`, the first a letter or digit",
        bounds::NAME_MAX
    );
    let problem = Problem::at(entry.key.mark, entry.at.path.clone(), "name", message);
    sink.add(problem.allowed(allowed));
    None
}

/// No two listeners on one address, and no pool in use that leads back to a listener of this site.
fn check_addresses(
    mut listeners: Vec<Address>,
    members: &[Address],
    used: &BTreeSet<String>,
    sink: &mut Sink,
) {
    listeners.sort_by_key(|listener| listener.mark);
    let mut known: BTreeMap<SocketAddr, Address> = BTreeMap::new();
    for listener in listeners {
        let overlaps = |first: &&Address| covers(first.address, listener.address);
        let other_way = |first: &&Address| covers(listener.address, first.address);
        let found = known.values().find(overlaps);
        let Some(first) = found.or_else(|| known.values().find(other_way)) else {
            known.insert(listener.address, listener);
            continue;
        };
        let message = format!(
            "{} and {} listen on one address",
            first.owner, listener.owner
        );
        let hint = format!("the other one is in line {}", first.mark.line);
        sink.add(listener.problem("address-twice", message).hint(hint));
    }
    for member in members.iter().filter(|one| used.contains(&one.owner)) {
        // The addresses of this machine are not known here, but for those that every one has.
        let is_it = |listener: &&Address| {
            listener.address == member.address
                || (member.address.ip().is_loopback() && covers(listener.address, member.address))
        };
        if let Some(listener) = known.values().find(is_it) {
            let owner = &listener.owner;
            let message = format!("this member is {owner} itself: its connections would never end");
            sink.add(member.problem("loop", message));
        }
    }
}

/// Whether a listener at `wide` has what is sent to `address`. `[::]` is IPv6 alone: IPv4 has an
/// address of its own for everything.
fn covers(wide: SocketAddr, address: SocketAddr) -> bool {
    wide == address
        || (wide.port() == address.port()
            && wide.is_ipv4() == address.is_ipv4()
            && wide.ip().is_unspecified())
}

impl Address {
    fn new(address: SocketAddr, owner: String, at: &At<'_>) -> Self {
        Self {
            address,
            owner,
            mark: at.mark(),
            path: at.path.clone(),
        }
    }

    fn problem(&self, code: &'static str, message: String) -> Problem {
        let problem = Problem::at(self.mark, self.path.clone(), code, message);
        problem.found(quote(&self.address.to_string()))
    }
}
