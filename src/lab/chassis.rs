//! A host's power and cables: what each request does, given what the host is doing.

use super::bmc::Bmc;
use super::control::{Handle, Power, Request, State};
use super::hardware::Hardware;
use super::machine::{End, Machine};
use super::names::Wire;
use super::network;
use super::store::{HostKind, LabDir};
use crate::error::Failure;
use std::future::pending;
use std::time::Duration;
use tokio::time::Instant;

/// What a host asked to shut down is granted before it is killed. Stopping a Ceph host takes a few seconds; one with
/// a hanging stop job takes for ever.
const SOFT_OFF: Duration = Duration::from_secs(30);
/// The same for a virtual machine, whose processor may be emulated.
const VM_SOFT_OFF: Duration = Duration::from_secs(180);

/// Something that happens to a host by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The system inside stopped.
    Ended(End),
    /// It was asked to shut down and did not in time.
    GraceOver,
}

/// A host with its cords.
#[derive(Debug)]
pub(super) struct Chassis {
    lab: LabDir,
    hardware: Hardware,
    /// What the BMC asks.
    handle: Handle,
    machine: Option<Machine>,
    /// None while the cords are pulled.
    bmc: Option<Bmc>,
    /// Cables that are not in their switch.
    partitioned: Vec<Wire>,
    /// When a host that was asked to shut down is killed.
    soft_off: Option<Instant>,
    /// Whether it is booted again when it has shut down.
    back_on: bool,
}

impl Chassis {
    /// A host that is off, with its BMC alive.
    pub(super) async fn new(lab: LabDir, hardware: Hardware, handle: Handle) -> Result<Self, Failure> {
        let (machine, bmc, partitioned, soft_off, back_on) = (None, None, Vec::new(), None, false);
        let mut chassis = Chassis { lab, hardware, handle, machine, bmc, partitioned, soft_off, back_on };
        chassis.plug_in_cords().await?;
        Ok(chassis)
    }

    /// What it is doing.
    pub(super) fn state(&self) -> State {
        let power = match (&self.machine, &self.bmc) {
            (_, None) => Power::Cut,
            (Some(_), Some(_)) => Power::On,
            (None, Some(_)) => Power::Off,
        };
        let name = |wire: &Wire| if *wire == Wire::Storage { "storage" } else { "management" };
        State { power, partitioned: self.partitioned.iter().map(|w| name(w).to_owned()).collect() }
    }

    /// Carries out a request.
    pub(super) async fn carry_out(&mut self, request: Request) -> Result<(), Failure> {
        match request {
            Request::Status => Ok(()),
            Request::On => {
                self.plug_in_cords().await?;
                self.on().await
            }
            Request::Off => self.off().await,
            Request::Soft => self.soft_off(false),
            Request::Reset | Request::SoftReset if self.machine.is_none() => Err(Failure::refused("it is off")),
            Request::SoftReset => self.soft_off(true),
            Request::Reset | Request::Cycle => {
                self.off().await?;
                self.on().await
            }
            Request::Cut => self.cut().await,
            Request::PartitionStorage => self.partition(&[Wire::Storage]).await,
            Request::PartitionManagement => self.partition(&[Wire::Management]).await,
            Request::PartitionAll => self.partition(&[Wire::Management, Wire::Storage]).await,
            Request::Heal => {
                self.plug_in_cords().await?;
                self.heal().await
            }
        }
    }

    /// Waits for something that happens by itself.
    pub(super) async fn event(&mut self) -> Event {
        let soft_off = self.soft_off;
        let grace = async {
            match soft_off {
                Some(at) => tokio::time::sleep_until(at).await,
                None => pending().await,
            }
        };
        let ended = async {
            match &mut self.machine {
                Some(machine) => machine.ended().await,
                None => pending().await,
            }
        };
        tokio::select! {
            end = ended => Event::Ended(end),
            () = grace => Event::GraceOver,
        }
    }

    /// Does what follows from such an event.
    pub(super) async fn follow(&mut self, event: Event) -> Result<(), Failure> {
        let again = self.back_on || event == Event::Ended(End::Reboot);
        self.off().await?;
        if again { self.on().await } else { Ok(()) }
    }

    async fn on(&mut self) -> Result<(), Failure> {
        if self.machine.is_none() {
            self.machine = Some(self.hardware.boot(&self.partitioned).await?);
        }
        Ok(())
    }

    async fn off(&mut self) -> Result<(), Failure> {
        self.soft_off = None;
        self.back_on = false;
        self.machine = None;
        self.hardware.clear().await
    }

    fn soft_off(&mut self, back_on: bool) -> Result<(), Failure> {
        if let Some(machine) = &self.machine {
            machine.press_power_button()?;
            self.back_on = back_on;
            let grace = if self.hardware.kind == HostKind::Vm { VM_SOFT_OFF } else { SOFT_OFF };
            self.soft_off.get_or_insert_with(|| Instant::now() + grace);
        }
        Ok(())
    }

    async fn cut(&mut self) -> Result<(), Failure> {
        let wires = [Wire::Management, Wire::Storage, Wire::Bmc];
        network::darken(self.hardware.host, &wires).await?;
        self.bmc = None;
        self.off().await
    }

    async fn plug_in_cords(&mut self) -> Result<(), Failure> {
        if self.bmc.is_none() {
            self.bmc = Some(Bmc::start(&self.lab, self.hardware.host, self.handle.clone()).await?);
        }
        Ok(())
    }

    async fn partition(&mut self, wires: &[Wire]) -> Result<(), Failure> {
        for wire in wires {
            if self.machine.is_some() {
                network::plug(self.hardware.host, *wire, false).await?;
            }
            if !self.partitioned.contains(wire) {
                self.partitioned.push(*wire);
            }
        }
        Ok(())
    }

    async fn heal(&mut self) -> Result<(), Failure> {
        while let Some(wire) = self.partitioned.last().copied() {
            if self.machine.is_some() {
                network::plug(self.hardware.host, wire, true).await?;
            }
            self.partitioned.pop();
        }
        Ok(())
    }
}
