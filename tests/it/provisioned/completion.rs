//! Names that only the cluster knows, completed.

use crate::rack::Rack;
use crate::run::stdout;

#[test]
fn names_of_guests_and_images_are_completed() {
    let rack = Rack::provisioned();
    let _guest = rack.tiny_guest("completed", &["--no-start"]);
    let complete = |words: &[&str]| {
        let mut command = rack.command(&[&["--", "rackhand"], words].concat());
        command.envs([("COMPLETE", "bash"), ("_CLAP_IFS", "\n")]);
        command.env("_CLAP_COMPLETE_INDEX", words.len().to_string());
        stdout(&command.output().unwrap())
    };
    assert_eq!(complete(&["guest", "start", "compl"]), "completed");
    assert!(complete(&["guest", "create", "x", "--image", ""]).lines().any(|name| name == "tiny"));
}
