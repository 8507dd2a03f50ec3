/** Decisions in their three forms: on the wire, by name, and as people read them. */
import { ApprovalEnd } from "../gen/flydex/agent/v1/agent_pb";
import { Decision } from "../gen/flydex/v1/command_pb";
import type { ApprovalCard, DecisionName } from "../protocol/approval";

const WIRE: Record<DecisionName, Decision> = {
  accept: Decision.ACCEPT,
  accept_for_session: Decision.ACCEPT_FOR_SESSION,
  decline: Decision.DECLINE,
  cancel: Decision.CANCEL,
};

export function wireDecision(name: DecisionName): Decision {
  return WIRE[name];
}

export function decisionName(decision: Decision): DecisionName | undefined {
  return (Object.keys(WIRE) as DecisionName[]).find((name) => WIRE[name] === decision);
}

const ORDER: readonly DecisionName[] = ["accept", "accept_for_session", "decline", "cancel"];

/**
 * The answers that a card offers here, the mildest yes first. Accepting for a whole session must be in the signed card
 * and switched on at the computer now: a card may be older than the switch.
 */
export function offeredDecisions(card: Pick<ApprovalCard, "decisions">, sessionAcceptance: boolean): DecisionName[] {
  const offered = ORDER.filter((name) => card.decisions.includes(name));
  return sessionAcceptance ? offered : offered.filter((name) => name !== "accept_for_session");
}

export function isAccept(decision: DecisionName | undefined): boolean {
  return decision === "accept" || decision === "accept_for_session";
}

/** Whether the machine wants a passkey's word with that answer. */
export function needsPasskey(card: Pick<ApprovalCard, "passkeyRequired">, decision: DecisionName): boolean {
  return card.passkeyRequired && isAccept(decision);
}

/** What became of an approval, in a few words. */
export function endText(end: ApprovalEnd): string {
  switch (end) {
    case ApprovalEnd.ACCEPTED:
      return "Accepted";
    case ApprovalEnd.DECLINED:
      return "Declined";
    case ApprovalEnd.CANCELLED:
      return "Declined, and the turn stopped";
    case ApprovalEnd.AT_DESK:
      return "Answered at the computer";
    case ApprovalEnd.EXPIRED:
      return "Expired without an answer";
    case ApprovalEnd.WITHDRAWN:
      return "Withdrawn: Codex no longer asks";
    case ApprovalEnd.CODEX_LOST:
      return "Gone: Codex restarted";
    case ApprovalEnd.UNKNOWN:
      return "Answered; what came of it is not known";
    case ApprovalEnd.UNSPECIFIED:
      return "Closed while this page was away";
  }
}
