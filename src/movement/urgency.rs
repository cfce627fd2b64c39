//! How much of a hurry the operator is in.

use crate::ui::Ui;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// What an interruption asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Nothing: carry on.
    #[default]
    None,
    /// Begin nothing more, finish what runs.
    Finish,
    /// Abort what runs, cleanly.
    Abort,
}

/// Follows Ctrl-C and SIGTERM from now on: once to finish, twice to abort.
///
/// # Errors
/// When signals cannot be followed.
pub fn on_signals(ui: &Ui) -> std::io::Result<watch::Receiver<Urgency>> {
    let (sender, receiver) = watch::channel(Urgency::None);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let ui = ui.clone();
    tokio::spawn(async move {
        for (urgency, words) in [
            (Urgency::Finish, "interrupted: begins no more moves, waits for those under way; once more to abort them"),
            (Urgency::Abort, "interrupted again: aborts the moves under way; their guests stay where they are"),
        ] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            ui.warn(words);
            // The command may be over already.
            let _ = sender.send(urgency);
        }
        // What is being aborted has deadlines of its own.
        std::future::pending::<()>().await;
    });
    Ok(receiver)
}
