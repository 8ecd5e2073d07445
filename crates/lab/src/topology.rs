//! What a lab consists of, as a user writes it, and where everything gets its address.
//!
//! Every address lies in a documentation or private range and exists only inside the lab's own
//! namespaces.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use hitless_net::Prefix;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

mod site;

/// What the outer headers take: Geneve with its option over IPv6.
const OVERHEAD_V6: u32 = 76;
/// Nodes that the addresses have room for.
const NODES_MAX: usize = 32;
/// Interface towards the router, in every namespace that has one.
pub const UPLINK: &str = "up0";
/// Ports that clients connect from: first and last.
pub const CLIENT_PORTS: (u64, u64) = (1_024, 65_535);
/// Port of the HTTP virtual server and of the web servers behind it.
pub const HTTP_PORT: u16 = 80;
/// Port of the stream virtual server and of the stream server behind it.
pub const STREAM_PORT: u16 = 7_000;

/// A lab.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// Names of everything begin with `hl-ID-`. 1 to 8 of `a-z` and `0-9`.
    pub id: String,
    /// Nodes that the lab begins with.
    pub nodes: Vec<String>,
    /// Guests that it begins with, each with its node.
    pub guests: BTreeMap<String, String>,
    /// MTU of all links.
    #[serde(default = "Topology::default_mtu")]
    pub mtu: u32,
    /// Web servers behind the HTTP virtual server.
    #[serde(default = "Topology::default_web_servers")]
    pub web_servers: u16,
    /// Sizes in bytes of the objects that they have.
    #[serde(default = "Topology::default_objects")]
    pub objects: Vec<u32>,
    /// Added to the site that the lab writes, such as `timeouts` and `limits`.
    #[serde(default)]
    pub site: Option<String>,
}

impl Topology {
    const fn default_mtu() -> u32 {
        1_500
    }

    const fn default_web_servers() -> u16 {
        2
    }

    fn default_objects() -> Vec<u32> {
        vec![1_024, 65_536]
    }

    /// Reads it from YAML and checks what can be checked without the machine.
    pub fn parse(text: &str) -> Result<Self> {
        let topology: Self = from_yaml(text)?;
        topology.check()?;
        topology.check_site(text)?;
        Ok(topology)
    }

    /// Reads the file, whose name every error bears.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// Checks what can be checked without the machine.
    pub fn check(&self) -> Result<()> {
        check_id(&self.id)?;
        ensure!(
            !self.nodes.is_empty(),
            "nodes: a lab needs at least one node"
        );
        ensure!(
            self.nodes.len() <= NODES_MAX,
            "nodes: found {}, at most {NODES_MAX} are allowed",
            self.nodes.len()
        );
        for (index, node) in self.nodes.iter().enumerate() {
            check_name("nodes", node)?;
            ensure!(
                !self.nodes[..index].contains(node),
                "nodes: {node} is named twice"
            );
        }
        for (guest, node) in &self.guests {
            check_name("guests", guest)?;
            ensure!(
                self.nodes.contains(node),
                "guests: {guest} is to run on {node}, which is no node of this lab"
            );
        }
        ensure!(
            (1_400..=3_400).contains(&self.mtu),
            "mtu: found {}, allowed are 1400 to 3400 (IPv6 inside the encapsulation, native XDP on veth)",
            self.mtu
        );
        ensure!(
            (1..=16).contains(&self.web_servers),
            "web_servers: found {}, allowed are 1 to 16",
            self.web_servers
        );
        for size in &self.objects {
            ensure!(
                (1..=16 << 20).contains(size),
                "objects: found {size}, allowed are 1 to 16777216 bytes"
            );
        }
        Ok(())
    }

    /// What all names of this lab begin with.
    pub fn prefix(&self) -> String {
        prefix_of(&self.id)
    }

    /// Name of one of its namespaces.
    pub fn namespace(&self, what: &str) -> String {
        format!("{}{what}", self.prefix())
    }

    /// Name of a node's namespace.
    pub fn node_namespace(&self, node: &str) -> String {
        self.namespace(&format!("node-{node}"))
    }

    /// What the names of a node's guests' namespaces begin with.
    pub fn guest_prefix(&self, node: &str) -> String {
        self.namespace(&format!("{node}-"))
    }

    /// Where it keeps its files.
    pub fn folder(&self) -> PathBuf {
        folder_of(&self.id)
    }

    /// The virtual addresses.
    pub fn vips(&self) -> [IpAddr; 2] {
        [
            Ipv4Addr::new(203, 0, 113, 7).into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 7).into(),
        ]
    }

    /// The largest segment that guests may offer to IPv4 and IPv6 clients.
    pub const fn advertised_mss(&self) -> (u32, u32) {
        (self.mtu - OVERHEAD_V6 - 40, self.mtu - OVERHEAD_V6 - 60)
    }

    /// The site configuration: an HTTP and a stream virtual server on each virtual address.
    pub fn site_text(&self) -> String {
        let members = |addresses: Vec<IpAddr>, port: u16| -> String {
            let list: Vec<String> = addresses
                .into_iter()
                .map(|address| format!("\"{}\"", std::net::SocketAddr::new(address, port)))
                .collect();
            list.join(", ")
        };
        let web: Vec<IpAddr> = (0..self.web_servers)
            .map(|n| member_address(n + 1, false))
            .collect();
        let streams = vec![member_address(0, false), member_address(0, true)];
        let mut text = format!(
            "pools:\n  web:\n    method: least_connections\n    members: [{}]\n    monitor: {{ http: {{ path: /{}, \
             expect: 200, interval: 1s }} }}\n  streams:\n    method: round_robin\n    members: [{}]\nvirtual_servers:\n",
            members(web, HTTP_PORT),
            self.objects.first().copied().unwrap_or(1),
            members(streams, STREAM_PORT),
        );
        for (family, vip) in ["v4", "v6"].iter().zip(self.vips()) {
            for (name, port, protocol, pool) in [
                ("web", HTTP_PORT, "http", "web"),
                ("streams", STREAM_PORT, "tcp", "streams"),
            ] {
                let listen = std::net::SocketAddr::new(vip, port);
                text.push_str(&format!(
                    "  {name}-{family}: {{ listen: \"{listen}\", protocol: {protocol}, pool: {pool} }}\n"
                ));
            }
        }
        text.push_str(self.site.as_deref().unwrap_or_default());
        text
    }
}

/// Checks a lab's id: names of namespaces and folders are made of it.
pub fn check_id(id: &str) -> Result<()> {
    let is_good = (1..=8).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    ensure!(
        is_good,
        "id: found {id:?}, allowed are 1 to 8 of a-z and 0-9"
    );
    Ok(())
}

/// What all names of lab `id` begin with.
pub fn prefix_of(id: &str) -> String {
    format!("hl-{id}-")
}

/// Where lab `id` keeps its files.
pub fn folder_of(id: &str) -> PathBuf {
    PathBuf::from("/run/hitless-lab").join(id)
}

fn check_name(field: &str, name: &str) -> Result<()> {
    if let Err(error) = hitless_api::check_name(field, name) {
        bail!("{error}");
    }
    Ok(())
}

/// A namespace that hangs on the router by one link: both ends' addresses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spoke {
    pub router_v4: Prefix,
    pub router_v6: Prefix,
    pub own_v4: Prefix,
    pub own_v6: Prefix,
}

fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Prefix {
    Prefix::new(Ipv4Addr::new(a, b, c, d).into(), length).expect("at most 32")
}

fn v6(network: [u16; 4], host: u16, length: u8) -> Prefix {
    let [a, b, c, d] = network;
    let address = Ipv6Addr::new(a, b, c, d, 0, 0, 0, host);
    Prefix::new(address.into(), length).expect("at most 128")
}

/// The clients' link.
pub fn clients_spoke() -> Spoke {
    Spoke {
        router_v4: v4(192, 0, 2, 1, 24),
        router_v6: v6([0x2001, 0xdb8, 0xc, 0], 1, 64),
        own_v4: v4(192, 0, 2, 10, 24),
        own_v6: v6([0x2001, 0xdb8, 0xc, 0], 0x10, 64),
    }
}

/// The members' link.
pub fn members_spoke() -> Spoke {
    Spoke {
        router_v4: v4(198, 51, 100, 1, 24),
        router_v6: v6([0x2001, 0xdb8, 0xa, 0], 1, 64),
        own_v4: v4(198, 51, 100, 10, 24),
        own_v6: v6([0x2001, 0xdb8, 0xa, 0], 0x10, 64),
    }
}

/// Address of member `number`: 0 is the stream server, the others are web servers.
pub fn member_address(number: u16, is_v6: bool) -> IpAddr {
    let spoke = members_spoke();
    let network = if is_v6 { spoke.own_v6 } else { spoke.own_v4 };
    network
        .nth(0x10 + u32::from(number))
        .expect("at most 16 members in a /24")
}

/// The uplink of the node with this number.
pub fn node_spoke(number: u8) -> Spoke {
    let network = [0xfd00, 0, u16::from(number), 0];
    Spoke {
        router_v4: v4(10, 0, number, 1, 24),
        router_v6: v6(network, 1, 64),
        own_v4: v4(10, 0, number, 2, 24),
        own_v6: v6(network, 2, 64),
    }
}

/// Where the guests of the node with this number have their addresses.
pub fn guests_network(number: u8) -> [Prefix; 2] {
    [
        v4(10, 1, number, 0, 24),
        v6([0xfd00, 1, u16::from(number), 0], 0, 64),
    ]
}

/// What is wrong, with its line and column.
pub(crate) fn from_yaml<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_saphyr::from_str(text).map_err(|error| {
        let plain = error.without_snippet().to_string();
        anyhow::anyhow!("{}", plain.trim_start_matches("error: "))
    })
}
