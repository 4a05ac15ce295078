//! `share`: a ticket for one replica, and serving it until interrupted.

use super::ticket::{Wish, make, shareable};
use crate::args::ShareArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::hosting::{Hosting, Say};
use crate::signals;
use anabranch::engine::transport::{Address, ListenAddr};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;

/// Shares a replica.
pub(crate) async fn run(context: &Context, args: &ShareArgs) -> Result<(), Failure> {
    let node = context.node()?;
    let record = shareable(&node, &args.replica, args.sealed)?;
    let listen = args.listen.as_deref().unwrap_or(&node.inner().settings().share_listen);
    let stop = signals::stopping()?;
    let listener = node.inner().listen(listen_address(listen)?).await?;
    let address = reachable(listener.local_addr());
    let wish = Wish { role: args.role, expires: None, once: false };
    let made = make(&node, &record, std::slice::from_ref(&address), &wish).await?;
    made.caution(context, "use --listen with an address that the others can reach");
    context.output.answer(&made.ticket.to_string(), &made.object())?;
    context.output.note(&format!("serving {} at {address}; Ctrl-C ends it", record.name));
    let hosting = Arc::new(Hosting::new(&node, Some(record), context.output, Say::Trouble));
    hosting.start().await;
    Arc::clone(&hosting).listen(listener, stop).await;
    hosting.end().await;
    Ok(())
}

/// Where to listen, as the user wrote it.
pub(crate) fn listen_address(text: &str) -> Result<ListenAddr, Failure> {
    text.parse()
        .map_err(|e: anabranch::engine::transport::ListenAddrError| Failure::usage(e.to_string()))
}

/// The address at which others reach a listener. One on all addresses is reached at the address from which this machine
/// would speak to the outside; finding that out sends nothing.
pub(crate) fn reachable(listener: SocketAddr) -> Address {
    let ip = match listener.ip() {
        ip if ip.is_unspecified() => outward(ip).unwrap_or(ip),
        ip => ip,
    };
    Address::of_listener(SocketAddr::new(ip, listener.port()))
}

fn outward(any: IpAddr) -> Option<IpAddr> {
    // Addresses set aside for documentation: they only pick the interface.
    let outside = if any.is_ipv4() { "192.0.2.1:9" } else { "[2001:db8::1]:9" };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    socket.connect(outside).ok()?;
    socket.local_addr().ok().map(|local| local.ip()).filter(|ip| !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_one_address_is_reached_there() {
        let local: SocketAddr = "127.0.0.1:7700".parse().unwrap();
        assert_eq!(reachable(local).to_string(), "http://127.0.0.1:7700");
    }

    #[test]
    fn a_listener_on_all_addresses_keeps_its_port() {
        let all: SocketAddr = "0.0.0.0:7701".parse().unwrap();
        assert!(reachable(all).to_string().ends_with(":7701"));
    }
}
