//! Against a BMC that answers as it is told to, with a clock that only moves when all wait.

use super::*;
use crate::ssh::{Exec, FakeRemote, Output, RemoteError};
use serde_json::json;
use std::sync::Mutex;

const TAG: &str = "7XK4M02";
const LIMIT: Duration = Duration::from_secs(30);

/// What a BMC does, over Redfish.
struct Bmc {
    /// What each read of the power says; the last one stays.
    reads: Mutex<Vec<&'static str>>,
    /// What is said to the order to switch off, and what reads say from then on.
    order: (&'static str, Vec<&'static str>),
    serial: &'static str,
    /// When it was ordered off.
    ordered: Mutex<Vec<Instant>>,
}

impl Bmc {
    fn new(reads: &[&'static str], status: &'static str, after: &[&'static str]) -> Arc<Self> {
        let (reads, order) = (Mutex::new(reads.to_vec()), (status, after.to_vec()));
        Arc::new(Bmc { reads, order, serial: TAG, ordered: Mutex::default() })
    }

    fn of(self: Arc<Self>, serial: &'static str) -> Arc<Self> {
        Arc::new(Bmc { serial, ..Arc::into_inner(self).unwrap() })
    }

    /// What curl prints.
    fn answer(&self, exec: &Exec) -> Result<Output, RemoteError> {
        let asked = String::from_utf8_lossy(&exec.stdin).into_owned();
        let (body, status) = if asked.contains("ComputerSystem.Reset") {
            assert!(asked.contains(r#"data-raw = "{\"ResetType\":\"ForceOff\"}""#), "{asked}");
            self.ordered.lock().unwrap().push(Instant::now());
            *self.reads.lock().unwrap() = self.order.1.clone();
            (json!({"error": {"message": "host power is already OFF"}}), self.order.0)
        } else if asked.contains("Systems/1") {
            let mut reads = self.reads.lock().unwrap();
            let power = if reads.len() > 1 { reads.remove(0) } else { reads[0] };
            let status = if power.starts_with(|c: char| c.is_ascii_digit()) { power } else { "200" };
            (json!({"PowerState": power, "SKU": self.serial}), status)
        } else {
            (json!({"Members": [{"@odata.id": "/redfish/v1/Systems/1"}]}), "200")
        };
        Ok(Output { status: 0, stdout: format!("{body}\n{status} ").into_bytes(), stderr: Vec::new() })
    }

    fn from(self: &Arc<Self>, place: &str) -> Arc<dyn Remote> {
        let bmc = Arc::clone(self);
        Arc::new(FakeRemote::new(place).rule(move |exec| Some(bmc.answer(exec))))
    }

    fn orders(&self) -> usize {
        self.ordered.lock().unwrap().len()
    }
}

fn spec() -> BmcSpec {
    let text = json!({ "kind": "redfish", "address": "10.0.0.111", "user": "root", "password": { "env": "X" } });
    serde_json::from_value(text).unwrap()
}

async fn prove_at(places: &[Arc<dyn Remote>]) -> Result<PowerProof, NoPower> {
    prove("h1", &spec(), &Secret::new("x"), TAG, places, LIMIT).await
}

async fn unproven(places: &[Arc<dyn Remote>]) -> String {
    prove_at(places).await.unwrap_err().to_string()
}

#[tokio::test(start_paused = true)]
async fn a_machine_is_ordered_off_once_and_off_after_two_reads() {
    let bmc = Bmc::new(&["On"], "204", &["Off"]);
    let proof = prove_at(&[bmc.from("h2")]).await.unwrap();
    assert_eq!((proof.host(), proof.serial()), ("h1", TAG));
    assert_eq!(proof.by(), "redfish at 10.0.0.111, asked from h2");
    assert_eq!(bmc.orders(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_off_is_not_ordered_anything() {
    let bmc = Bmc::new(&["Off"], "204", &["Off"]);
    prove_at(&[bmc.from("h2")]).await.unwrap();
    assert_eq!(bmc.orders(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_order_that_is_refused_is_looked_at_again() {
    for status in ["409", "400"] {
        let bmc = Bmc::new(&["On"], status, &["Off"]);
        prove_at(&[bmc.from("h2")]).await.unwrap();
        let bmc = Bmc::new(&["On"], status, &["On"]);
        let why = unproven(&[bmc.from("h2")]).await;
        assert!(why.ends_with("is on, asked from h2; it answered to the order: host power is already OFF"), "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn switching_off_takes_its_time_and_counts_as_on() {
    let bmc = Bmc::new(&["On"], "202", &["On", "On", "PoweringOff", "PoweringOff", "Off", "PoweringOff", "Off"]);
    prove_at(&[bmc.from("h2")]).await.unwrap();
    assert_eq!(bmc.orders(), 1);
    let bmc = Bmc::new(&["On"], "202", &["PoweringOff"]);
    let why = unproven(&[bmc.from("h2")]).await;
    assert_eq!(why, "host h1 is not proven to be off: the BMC says that it is PoweringOff, asked from h2");
    assert_eq!(bmc.orders(), 1, "it is under way");
}

#[tokio::test(start_paused = true)]
async fn one_that_stays_on_is_ordered_again_but_not_all_the_time() {
    let bmc = Bmc::new(&["On"], "204", &["On"]);
    let why = unproven(&[bmc.from("h2")]).await;
    assert!(why.ends_with("the BMC says that it is on, asked from h2"), "{why}");
    let ordered = bmc.ordered.lock().unwrap().clone();
    assert!(ordered.len() >= 3, "{ordered:?}");
    assert!(ordered.windows(2).all(|two| two[1] - two[0] >= AGAIN), "{ordered:?}");
}

#[tokio::test(start_paused = true)]
async fn a_single_off_proves_nothing() {
    let lies = ["Off", "On", "Off", "PoweringOn", "Off", "On"];
    let bmc = Bmc::new(&lies, "204", &["Off", "On"]);
    let why = unproven(&[bmc.from("h2")]).await;
    assert!(why.contains("the BMC says that it is on"), "{why}");
    // Nor do two with a question in between that was not answered.
    let bmc = Bmc::new(&["Off", "503", "Off", "500", "Off", "000"], "204", &["On"]);
    let why = unproven(&[bmc.from("h2")]).await;
    assert!(why.contains("no answer from 10.0.0.111"), "{why}");
    assert_eq!(bmc.orders(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_neighbours_bmc_is_never_ordered_anything() {
    for serial in ["7XK4M03", "", "Default string"] {
        let bmc = Bmc::new(&["On"], "204", &["Off"]).of(serial);
        let began = Instant::now();
        let why = unproven(&[bmc.from("h2"), bmc.from("h3")]).await;
        assert!(why.contains("10.0.0.111 is not the BMC of the machine 7XK4M02"), "{why}");
        assert_eq!(bmc.orders(), 0);
        assert!(began.elapsed() < Duration::from_secs(2), "that does not change");
        // Off or not, it says nothing of this host.
        unproven(&[Bmc::new(&["Off"], "204", &["Off"]).of(serial).from("h2")]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_answer_and_a_wrong_password_are_never_off() {
    let silent: Arc<dyn Remote> = Arc::new(FakeRemote::new("h2"));
    let began = Instant::now();
    let why = unproven(&[Arc::clone(&silent)]).await;
    assert!(why.contains("no answer from 10.0.0.111, asked from h2"), "{why}");
    assert!(began.elapsed() >= LIMIT - Duration::from_secs(1), "it may come back");
    let bmc = Bmc::new(&["401"], "204", &["Off"]);
    let began = Instant::now();
    let why = unproven(&[bmc.from("h2")]).await;
    assert!(why.contains("wrong user name or password"), "{why}");
    assert!(began.elapsed() < Duration::from_secs(1), "an account is locked by trying");
    // A place that has no way to it holds nobody up.
    let bmc = Bmc::new(&["On"], "204", &["Off"]);
    let began = Instant::now();
    let proof = prove_at(&[silent, bmc.from("h3")]).await.unwrap();
    assert!(proof.by().ends_with("asked from h3") && began.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn without_a_service_tag_or_a_bmc_nothing_is_asked() {
    let text = "cluster: {name: rack, fsid: 11111111-2222-4333-8444-555555555555}\nnetworks:\n  \
        management: {cidr: 10.0.0.0/24}\n  storage: {cidr: 10.0.1.0/24}\nhosts:\n  \
        - {name: h1, address: 10.0.0.11, storage_address: 10.0.1.11, roles: [mon, mgr]}\n  \
        - {name: h2, address: 10.0.0.12, storage_address: 10.0.1.12, roles: [guests], \
             bmc: {kind: ipmi, address: 10.0.0.112, user: root, password: {env: RACKHAND_NO_SUCH}}}\n";
    let inventory = crate::inventory::parse("inventory.yaml", text).unwrap();
    let fleet = Fleet::of([]);
    let why = async |host: &str, tag: &str| {
        let spec = inventory.host(host).unwrap();
        power_off(spec, tag, &inventory, &fleet, LIMIT).await.unwrap_err().to_string()
    };
    assert_eq!(why("h1", TAG).await, "host h1 has no BMC in the inventory");
    for tag in ["", "  ", "None", "To Be Filled By O.E.M.", "0000000", "x"] {
        assert!(why("h2", tag).await.contains("its service tag is not known"), "{tag}");
    }
    assert_eq!(why("h2", TAG).await, "host h2: environment variable RACKHAND_NO_SUCH is not set");
}
