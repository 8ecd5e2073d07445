//! `hitless ingress`: wiring of the driver in a guest.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use clap::Args;
use hitless_control::bpf::BpfIngress;
use hitless_control::ingress::{Ingress, Options as Driver};
use hitless_control::kernel;
use hitless_control::link::Address;
use hitless_control::netns::guest_pins;
use hitless_net::Namespace;

use crate::exit::Exit;
use crate::{logging, version};

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The guest's name
    #[arg(long)]
    name: String,
    /// The file in which it keeps its orders
    #[arg(long, value_name = "FILE")]
    orders: PathBuf,
    /// Where the node's agent listens
    #[arg(long, value_name = "ADDRESS")]
    agent: Address,
    /// The node's folder of pinned programs
    #[arg(long, value_name = "DIR")]
    pins: PathBuf,
}

pub(crate) fn run(options: Options) -> Result<Exit> {
    logging::start();
    crate::node::prefer_this_process();
    let boot = kernel::boot_of(&Namespace::current()?)?;
    let pins = guest_pins(&options.pins, &options.name, boot);
    let driver = Driver {
        name: options.name,
        boot,
        orders_file: options.orders,
        agent: options.agent,
        release: version::long().to_owned(),
    };
    let open = move |orders: &_| {
        let plane = BpfIngress::open(pins.clone(), orders)?;
        Ok(Arc::new(plane) as Arc<dyn hitless_control::plane::IngressPlane>)
    };
    Ingress::new(driver, Box::new(open)).run();
    Err(anyhow!("the ingress has nothing left to wait for"))
}
