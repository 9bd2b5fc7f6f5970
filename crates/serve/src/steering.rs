//! What requests change about a queue while it runs: its settings, its pause, and which tasks are cancelled. It is written
//! to the control log first, and then the ventilator is told.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tradewind_http::{Refusal, Settings, SettingsPatch, TaskState};
use tradewind_proto::Seq;
use tradewind_proto::dispatcher::{CancelAnswer, DispatcherSnapshot};
use tradewind_store::{Change, ControlState};
use tradewind_ventilator::Command;

use crate::control::ControlLog;
use crate::refused::{blocking, changed};
use crate::settings::{effective, policy};

/// Time for which a cancel waits for the record of a task that does not run.
const CANCEL_WAIT: Duration = Duration::from_secs(2);

/// The settings of a queue, and the way to its ventilator.
pub(crate) struct Steering {
    control: Arc<ControlLog>,
    /// What the configuration says.
    config: SettingsPatch,
    settings: Arc<Mutex<Settings>>,
    /// Held from the writing of a change until the ventilator is told: it hears of changes in their order.
    telling: tokio::sync::Mutex<()>,
    commands: mpsc::Sender<Command>,
}

impl Steering {
    pub(crate) fn new(
        control: Arc<ControlLog>,
        config: SettingsPatch,
        settings: Arc<Mutex<Settings>>,
        commands: mpsc::Sender<Command>,
    ) -> Self {
        let telling = tokio::sync::Mutex::default();
        Self { control, config, settings, telling, commands }
    }

    /// Returns the settings that hold.
    pub(crate) fn settings(&self) -> Settings {
        self.lock().clone()
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.control.lock().state().paused
    }

    /// Changes settings. `apply` is called with those that hold from now on.
    pub(crate) async fn set(
        self: &Arc<Self>,
        changes: Vec<Change>,
        apply: impl FnOnce(&Settings) + Send + 'static,
    ) -> Result<(), Refusal> {
        let _telling = self.telling.lock().await;
        let policy = blocking(self, move |steering| {
            let mut settings = steering.lock();
            changed(&steering.control, changes)?;
            *settings = steering.effective(steering.control.lock().state())?;
            apply(&settings);
            Ok(policy(&settings))
        });
        let policy = policy.await?;
        self.say(Command::SetPolicy(policy)).await
    }

    fn effective(&self, state: &ControlState) -> Result<Settings, Refusal> {
        effective(&self.config, state)
            .map_err(|_| Refusal::Failed("the settings cannot be read back"))
    }

    pub(crate) async fn set_paused(self: &Arc<Self>, is_paused: bool) -> Result<(), Refusal> {
        let _telling = self.telling.lock().await;
        let change = Change::Pause(is_paused);
        blocking(self, move |steering| changed(&steering.control, [change])).await?;
        self.say(Command::Pause(is_paused)).await
    }

    /// Cancels a task of the ring. Returns the time for which its record is to be waited for.
    pub(crate) async fn cancel(&self, seq: Seq) -> Result<Duration, Refusal> {
        match self.ask(|answer| Command::Cancel { seq, answer }).await? {
            CancelAnswer::Stopping => Ok(Duration::ZERO),
            _ => Ok(CANCEL_WAIT),
        }
    }

    /// Returns what a task of the ring without a record does.
    pub(crate) async fn task(&self, seq: Seq) -> Result<TaskState, Refusal> {
        match self.ask(|answer| Command::IsOut { seq, answer }).await? {
            true => Ok(TaskState::Running),
            false => Ok(TaskState::Queued),
        }
    }

    pub(crate) async fn look(&self) -> Result<DispatcherSnapshot, Refusal> {
        self.ask(Command::Look).await
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.say(command(answer)).await?;
        answered.await.map_err(|_| Refusal::Closed)
    }

    async fn say(&self, command: Command) -> Result<(), Refusal> {
        self.commands.send(command).await.map_err(|_| Refusal::Closed)
    }

    fn lock(&self) -> MutexGuard<'_, Settings> {
        // They are replaced as a whole.
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
