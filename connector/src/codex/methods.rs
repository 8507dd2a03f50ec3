//! The closed classification of every method of the known Codex, in all three directions.
//!
//! `methods.txt` lists the names that the pinned version itself generates. A name without a class fails the
//! tests, so that a new version of Codex is looked at before it is used. What is not classified is denied.

/// A request to Codex that this connector makes. There are no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// `initialize`.
    Initialize,
    /// `thread/resume`.
    ThreadResume,
    /// `thread/unsubscribe`.
    ThreadUnsubscribe,
    /// `thread/loaded/list`.
    ThreadLoadedList,
    /// `thread/list`.
    ThreadList,
    /// `thread/read`.
    ThreadRead,
    /// `thread/turns/list`.
    ThreadTurnsList,
    /// `model/list`.
    ModelList,
    /// `thread/start`.
    ThreadStart,
    /// `turn/start`.
    TurnStart,
    /// `turn/steer`.
    TurnSteer,
    /// `turn/interrupt`.
    TurnInterrupt,
    /// `thread/name/set`.
    ThreadNameSet,
    /// `thread/archive`.
    ThreadArchive,
    /// `thread/unarchive`.
    ThreadUnarchive,
    /// `review/start`.
    ReviewStart,
}

impl Method {
    /// The name on the wire.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Initialize => "initialize",
            Self::ThreadResume => "thread/resume",
            Self::ThreadUnsubscribe => "thread/unsubscribe",
            Self::ThreadLoadedList => "thread/loaded/list",
            Self::ThreadList => "thread/list",
            Self::ThreadRead => "thread/read",
            Self::ThreadTurnsList => "thread/turns/list",
            Self::ModelList => "model/list",
            Self::ThreadStart => "thread/start",
            Self::TurnStart => "turn/start",
            Self::TurnSteer => "turn/steer",
            Self::TurnInterrupt => "turn/interrupt",
            Self::ThreadNameSet => "thread/name/set",
            Self::ThreadArchive => "thread/archive",
            Self::ThreadUnarchive => "thread/unarchive",
            Self::ReviewStart => "review/start",
        }
    }
}

/// Used by the connector for itself; no command leads to it.
#[cfg(test)]
const CONNECTOR_LOCAL: &[&str] = &[
    "account/read",
    "initialize",
    "remoteControl/status/read",
    "server/diagnostics",
    "thread/loaded/list",
    "thread/resume",
    "thread/unsubscribe",
];

/// Behind reading commands, with parameters rebuilt.
#[cfg(test)]
const READ: &[&str] = &["model/list", "thread/items/list", "thread/list", "thread/read", "thread/turns/list"];

/// Behind acting commands, with parameters rebuilt.
#[cfg(test)]
const WRITE: &[&str] = &[
    "review/start",
    "thread/archive",
    "thread/name/set",
    "thread/start",
    "thread/unarchive",
    "turn/interrupt",
    "turn/start",
    "turn/steer",
];

/// Harmless enough to be offered one day; nothing leads to them.
#[cfg(test)]
const OFF: &[&str] = &[
    "account/rateLimits/read",
    "account/usage/read",
    "collaborationMode/list",
    "project/list",
    "project/read",
    "thread/compact/start",
    "thread/fork",
    "thread/goal/clear",
    "thread/goal/get",
    "thread/goal/set",
    "thread/items/read",
    "thread/queue/add",
    "thread/queue/delete",
    "thread/queue/list",
    "thread/queue/reorder",
    "thread/queue/start",
    "thread/queue/update",
    "thread/readState/update",
    "thread/search",
    "thread/searchOccurrences",
    "thread/section/move",
    "thread/timeline/list",
    "threadSection/list",
];

/// Never: they run programs, read or write files, change what Codex may do, or touch accounts.
#[cfg(test)]
const DENIED: &[&str] = &[
    "account/bedrock/checkGovCloudRequirements",
    "account/bedrock/discover",
    "account/bedrock/setup",
    "account/gatewayOAuth/cancel",
    "account/gatewayOAuth/login",
    "account/gatewayOAuth/read",
    "account/gcp/setup",
    "account/login/cancel",
    "account/login/start",
    "account/logout",
    "account/rateLimitResetCredit/consume",
    "account/securitySetup/read",
    "account/sendAddCreditsNudgeEmail",
    "account/workspaceMessages/read",
    "accountSession/list",
    "accountSession/switch",
    "app/installed",
    "app/list",
    "app/read",
    "command/exec",
    "command/exec/resize",
    "command/exec/terminate",
    "command/exec/write",
    "config/batchWrite",
    "config/mcpServer/reload",
    "config/read",
    "config/value/write",
    "configRequirements/read",
    "environment/add",
    "environment/info",
    "environment/status",
    "experimentalFeature/enablement/set",
    "experimentalFeature/list",
    "externalAgentConfig/detect",
    "externalAgentConfig/import",
    "externalAgentConfig/import/readHistories",
    "externalAgentConfig/import/recordHistory",
    "feedback/save",
    "feedback/upload",
    "fs/copy",
    "fs/createDirectory",
    "fs/getMetadata",
    "fs/readDirectory",
    "fs/readFile",
    "fs/remove",
    "fs/unwatch",
    "fs/watch",
    "fs/writeFile",
    "fuzzyFileSearch",
    "fuzzyFileSearch/sessionStart",
    "fuzzyFileSearch/sessionStop",
    "fuzzyFileSearch/sessionUpdate",
    "hooks/list",
    "marketplace/add",
    "marketplace/remove",
    "marketplace/upgrade",
    "mcpServer/event/stream/start",
    "mcpServer/event/stream/stop",
    "mcpServer/oauth/login",
    "mcpServer/resource/read",
    "mcpServer/tool/call",
    "mcpServerStatus/list",
    "memory/reset",
    "memory/status",
    "mock/experimentalMethod",
    "modelProvider/capabilities/read",
    "modelProvider/config/write",
    "modelProvider/list",
    "permissionProfile/list",
    "plugin/install",
    "plugin/installed",
    "plugin/list",
    "plugin/read",
    "plugin/reconcile",
    "plugin/search",
    "plugin/share/checkout",
    "plugin/share/delete",
    "plugin/share/list",
    "plugin/share/save",
    "plugin/share/updateTargets",
    "plugin/skill/read",
    "plugin/uninstall",
    "process/kill",
    "process/resizePty",
    "process/spawn",
    "process/writeStdin",
    "project/create",
    "project/delete",
    "project/import",
    "project/move",
    "project/update",
    "remoteControl/client/list",
    "remoteControl/client/revoke",
    "remoteControl/disable",
    "remoteControl/enable",
    "remoteControl/pairing/start",
    "remoteControl/pairing/status",
    "rollout/compress",
    "skills/config/write",
    "skills/extraRoots/set",
    "skills/list",
    "thread/approveGuardianDeniedAction",
    "thread/attachment/add",
    "thread/attachment/list",
    "thread/attachment/remove",
    "thread/attachmentOwner/list",
    "thread/backgroundTerminals/clean",
    "thread/backgroundTerminals/list",
    "thread/backgroundTerminals/terminate",
    "thread/decrement_elicitation",
    "thread/delete",
    "thread/guardianReview",
    "thread/increment_elicitation",
    "thread/inject_items",
    "thread/memory/read",
    "thread/memoryMode/set",
    "thread/metadata/update",
    "thread/prediction/request",
    "thread/prepareApprovedPlan",
    "thread/realtime/appendAudio",
    "thread/realtime/appendSpeech",
    "thread/realtime/appendText",
    "thread/realtime/listVoices",
    "thread/realtime/start",
    "thread/realtime/stop",
    "thread/revert",
    "thread/sample",
    "thread/sample/cancel",
    "thread/settings/update",
    "thread/shellCommand",
    "threadSection/create",
    "threadSection/delete",
    "threadSection/update",
    "turn/settings/update",
    "userVerification/cancel",
    "userVerification/delete",
    "userVerification/enroll",
    "userVerification/status",
    "userVerification/verify",
    "windowsSandbox/readiness",
    "windowsSandbox/setupStart",
];

/// Told to the core, or kept to know a thread's state.
#[cfg(test)]
const NOTIFICATIONS_USED: &[&str] = &[
    "error",
    "item/agentMessage/delta",
    "item/commandExecution/outputDelta",
    "item/completed",
    "item/fileChange/patchUpdated",
    "item/plan/delta",
    "item/reasoning/summaryPartAdded",
    "item/reasoning/summaryTextDelta",
    "item/started",
    "serverRequest/resolved",
    "thread/archived",
    "thread/closed",
    "thread/deleted",
    "thread/name/updated",
    "thread/reverted",
    "thread/settings/updated",
    "thread/started",
    "thread/status/changed",
    "thread/tokenUsage/updated",
    "thread/unarchived",
    "turn/completed",
    "turn/diff/updated",
    "turn/plan/updated",
    "turn/started",
];

/// Not wanted: Codex is asked not to send them.
pub(super) const NOTIFICATIONS_UNWANTED: &[&str] = &[
    "account/gatewayOAuth/changed",
    "account/login/completed",
    "account/rateLimits/updated",
    "account/updated",
    "app/list/updated",
    "autoApprovalReview/strictReviewRequired",
    "command/exec/outputDelta",
    "configWarning",
    "deprecationNotice",
    "externalAgentConfig/import/completed",
    "externalAgentConfig/import/progress",
    "fs/changed",
    "fuzzyFileSearch/sessionCompleted",
    "fuzzyFileSearch/sessionUpdated",
    "guardianWarning",
    "hook/completed",
    "hook/started",
    "item/autoApprovalReview/completed",
    "item/autoApprovalReview/started",
    "item/commandExecution/terminalInteraction",
    "item/fileChange/outputDelta",
    "item/mcpToolCall/progress",
    "item/reasoning/textDelta",
    "mcpServer/event/stream/notification",
    "mcpServer/oauthLogin/completed",
    "mcpServer/startupStatus/updated",
    "model/rerouted",
    "model/safetyBuffering/updated",
    "model/verification",
    "modelProvider/authRecoveryCompleted",
    "modelProvider/authRecoveryStarted",
    "process/exited",
    "process/outputDelta",
    "project/changed",
    "remoteControl/status/changed",
    "skills/changed",
    "thread/attachment/updated",
    "thread/compacted",
    "thread/environment/connected",
    "thread/environment/disconnected",
    "thread/goal/cleared",
    "thread/goal/updated",
    "thread/prediction/updated",
    "thread/project/updated",
    "thread/queue/changed",
    "thread/readState/changed",
    "thread/realtime/closed",
    "thread/realtime/error",
    "thread/realtime/item/completed",
    "thread/realtime/item/started",
    "thread/realtime/item/transcript/delta",
    "thread/realtime/itemAdded",
    "thread/realtime/outputAudio/delta",
    "thread/realtime/sdp",
    "thread/realtime/started",
    "thread/realtime/transcript/delta",
    "thread/realtime/transcript/done",
    "thread/section/changed",
    "turn/moderationMetadata",
    "warning",
    "windows/worldWritableWarning",
    "windowsSandbox/setupCompleted",
];

/// Told to the core; some may be answered remotely.
#[cfg(test)]
const REQUESTS_TOLD: &[&str] = &[
    "item/commandExecution/requestApproval",
    "item/fileChange/requestApproval",
    "item/permissions/requestApproval",
    "item/tool/requestUserInput",
    "mcpServer/elicitation/request",
];

/// Left to the desk, without an answer.
#[cfg(test)]
const REQUESTS_LEFT: &[&str] = &[
    "account/chatgptAuthTokens/refresh",
    "applyPatchApproval",
    "attestation/generate",
    "currentTime/read",
    "execCommandApproval",
    "item/tool/call",
];

#[cfg(test)]
mod tests;
