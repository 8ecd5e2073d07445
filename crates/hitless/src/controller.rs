//! `hitless controller`: wiring of the controller's driver.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use hitless_control::controller::cluster::SiteFacts;
use hitless_control::controller::{Controller, Options as Driver};
use hitless_core::flow::FlowKey;
use hitless_store::Embedded;
use hitless_types::site::Site;

use crate::exit::Exit;
use crate::{logging, version};

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The folder for its sockets
    #[arg(long, value_name = "DIR", default_value = crate::cluster::CONTROLLER_FOLDER)]
    run_dir: PathBuf,
    /// The file that holds the cluster's state [default: `store` in the run folder]
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
}

pub(crate) fn run(options: Options) -> Result<Exit> {
    logging::start();
    let run = options.run_dir;
    let shown = run.display();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&run)
        .with_context(|| format!("cannot make the run folder {shown}"))?;
    let path = options.store.unwrap_or_else(|| run.join("store"));
    let store = Embedded::open(&path)
        .with_context(|| format!("cannot open the store {}", path.display()))?;
    let controller = Controller::new(Driver {
        run,
        release: version::long().to_owned(),
        store: Box::new(store),
        new_key: Box::new(new_key),
        read_site: Box::new(read_site),
    })?;
    controller.run()?;
    Ok(Exit::Done)
}

/// A key that nobody can guess: from the kernel's random numbers.
fn new_key() -> FlowKey {
    let mut key = [0; 16];
    let mut source = std::fs::File::open("/dev/urandom").expect("every Linux has /dev/urandom");
    std::io::Read::read_exact(&mut source, &mut key).expect("it never ends");
    FlowKey(key)
}

/// Reads a site file as `serve` does; the whole file is refused with all that is wrong with it.
fn read_site(text: &str) -> Result<SiteFacts, String> {
    let site = Site::parse("site", text.as_bytes()).map_err(|problems| problems.to_string())?;
    let mut facts = SiteFacts::default();
    for server in &site.virtual_servers {
        let address = server.listen.ip();
        if address.is_unspecified() || address.is_loopback() {
            return Err(format!(
                "virtual server {:?} listens on {address}: in a cluster it needs an address of its own",
                server.name.as_str()
            ));
        }
        if !facts.vips.contains(&address) {
            facts.vips.push(address);
        }
        facts
            .names
            .insert(server.listen, server.name.as_str().to_owned());
        facts
            .servers
            .push(format!("{}/{}", server.listen, server.protocol.name()));
    }
    Ok(facts)
}
