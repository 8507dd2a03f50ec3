/** What a person is told about each code: a plain sentence, and what to do next. */
import { LOCAL, type Problem } from "./problem";

export interface Explanation {
  readonly title: string;
  readonly next: string;
  /** The number, as support asks for it; empty for what only this browser saw. */
  readonly reference: string;
}

const WAIT = "It is tried again by itself.";
const AGAIN = "Try again.";
const REPORT = "Reload the page. If it happens again, update FlyDex.";
const LOOK = "Look at the thread before you send it again.";
const NEW_CODE = "Run “flydex connect” on the computer and scan the new code.";

const EXPLANATIONS: Readonly<Record<number, readonly [title: string, next: string]>> = {
  [LOCAL.unreachable]: ["The relay cannot be reached.", "Check this device's network. It is tried again by itself."],
  [LOCAL.unverified]: [
    "An answer did not carry the computer's signature, so it was not used.",
    "Do not act on it. If it happens again, pair the computer anew.",
  ],
  [LOCAL.connectionLost]: ["The connection broke before the answer came.", AGAIN],
  [LOCAL.notPairedHere]: ["This browser is not paired with that computer.", NEW_CODE],
  [LOCAL.keysUnsupported]: [
    "This browser cannot make the kind of key that FlyDex needs.",
    "Update it, or use a current Chrome, Safari or Firefox.",
  ],
  [LOCAL.stale]: ["This page shows an older state.", "Reload the page."],
  [LOCAL.storage]: [
    "This browser does not let FlyDex keep its key.",
    "Leave private browsing, or allow storage for this site.",
  ],
  [LOCAL.passkeyNotUsed]: ["No passkey was used.", "Try again, or choose another way."],
  [LOCAL.passkeysUnsupported]: ["This browser cannot use the passkey that the computer needs.", "Use another browser or device."],
  [LOCAL.notConfirmed]: [
    "It was not confirmed with the computer's passkey, so nothing was sent.",
    "It is still open: try again, or answer at the computer.",
  ],
  [LOCAL.passkeyKnown]: ["This device has one of your passkeys already.", "Use another device or security key."],

  1000: ["Something failed on the server's side.", AGAIN],
  1001: ["The server did not understand the request.", REPORT],
  1002: ["A message was cut short on the way.", AGAIN],
  1003: ["A message was too large.", "Make it shorter and send it again."],
  1004: ["This page and the server speak different versions.", "Reload the page to get the current one."],
  1005: ["A message came that does not belong here.", REPORT],
  1006: ["The relay is too busy right now.", WAIT],
  1007: ["Too many requests in a short time.", "Wait a moment, then try again."],
  1008: ["There was no answer in time.", AGAIN],
  1009: ["The server is restarting.", WAIT],
  1010: ["That is not there, or not in your account.", "Go back and look at the list."],
  1011: ["The server's database cannot be reached.", "Try again in a minute."],
  1012: ["This connection was too slow to keep up.", WAIT],
  1013: ["The connection went silent.", WAIT],
  1014: ["That is not possible in the present state.", "Reload and look again."],
  1015: ["The computer is moving to another server.", WAIT],
  1016: ["The server cannot check right now who may come in.", WAIT],

  2000: ["You are signed out.", "Sign in again."],
  2001: ["Your role does not allow this.", "Ask an owner of the account."],
  2002: ["The server refuses requests from this address.", "Open FlyDex at its own address."],
  2003: ["The pass for the connection was not valid.", WAIT],
  2004: ["The pass for the connection had expired.", WAIT],
  2005: ["The pass for the connection was already used.", WAIT],
  2006: ["The pass for the connection was for another region.", WAIT],
  2007: ["The proof of this browser's key did not verify.", WAIT],
  2008: ["The server's word on this browser is not valid any more.", WAIT],
  2009: ["The computer's credential is not valid.", "Run “flydex doctor” on the computer."],
  2010: ["This computer was removed from the account.", NEW_CODE],
  2011: ["This browser was removed from the account.", "Pair it again at the computer."],
  2012: ["This sign-in link is not valid any more.", "Each link works once. Ask for a new one."],
  2013: ["A newer connection of the computer took over.", "Nothing to do."],
  2014: ["Two computers use the same key.", "Run “flydex unpair” on one of them, then pair it again."],
  2015: ["The computer reported an impossible ownership number.", "Run “flydex doctor” on the computer."],
  2016: [
    "Something between the computer and the relay ends TLS, and the computer does not accept that.",
    "Let TLS pass through to the relay, or change “require_channel_binding” on the computer.",
  ],
  2017: ["The computer is kept in another region.", "It goes there by itself. Its page says which one."],
  2030: ["This needs a fresh proof that it is you.", "Confirm with your passkey, or sign in again."],
  2031: ["This attempt is over, or began in another browser.", "Start again."],
  2032: ["This passkey is not accepted here.", "Choose another, or use a recovery code."],
  2033: ["This passkey may have been copied, so it is not accepted.", "Sign in another way, remove it and add a new one."],
  2034: ["This recovery code is not valid.", "Compare it with the paper. Each code works once."],
  2035: ["This is your only way into the account.", "Make recovery codes or add another passkey first."],
  2036: ["The sign-in at the identity provider could not be verified.", "Start again."],
  2037: ["Nobody here is linked with that identity.", "Sign in another way, then link it under “Account”."],
  2038: ["The identity provider does not answer.", "Try again in a minute, or use a passkey."],

  3000: ["This pairing code is not valid.", NEW_CODE],
  3001: ["This pairing code has expired.", NEW_CODE],
  3002: ["This pairing code was already used.", NEW_CODE],
  3003: ["The computer said no to this pairing.", "If that was a mistake, draw a new code and answer yes."],
  3004: [
    "The pairing could not be verified, so it was stopped.",
    "Something between this browser and the computer may have been tampered with. Do not continue on this network.",
  ],
  3005: ["This pairing has ended.", NEW_CODE],
  3006: ["The computer already has as many devices as it keeps.", "Remove one with “flydex devices”."],
  3010: ["The computer's list of devices has changed meanwhile.", "Look at the list and endorse again."],
  3011: ["The code on the new device has expired.", "Show a new one there."],
  3012: ["This computer takes new devices at its own keyboard only.", "Run “flydex devices add” there."],
  3013: ["This computer obeys no browser.", "That is a setting at the computer: “flydex settings”."],
  3014: [
    "The computer takes a passkey only right after its own yes to this device.",
    "Run “flydex devices add” there and pair again.",
  ],

  4000: ["The computer is not connected.", "Wake it, or start FlyDex on it."],
  4001: ["The signature on the command does not verify.", "Reload the page. If it stays, pair this browser again."],
  4002: ["The computer does not know this browser.", "Pair it: run “flydex connect” on the computer."],
  4003: ["This browser may only look on that computer.", "Pair it again at the computer with a larger role."],
  4004: ["The command expired before it arrived, so it was not run.", "Send it again if you still want it."],
  4005: ["This device's clock is ahead of the computer's.", "Set the clock, then try again."],
  4006: ["The command's id was already used.", "Send it again as a new message."],
  4007: ["FlyDex restarted on the computer, so this was not run.", LOOK],
  4008: ["The command was meant for another computer.", REPORT],
  4009: ["The command was meant for another account.", REPORT],
  4010: ["The computer has not admitted this session yet.", WAIT],
  4011: ["The command was given too long a life.", REPORT],
  4012: ["The command's content does not match its signature.", REPORT],
  4013: ["It is not known whether this took effect.", LOOK],
  4014: ["Remote control is paused at the computer.", "Run “flydex resume” there."],
  4015: ["The computer cannot write its journal; its disk may be full.", "Only stop and decline work until there is room."],
  4016: ["The computer has too many commands under way.", WAIT],

  5000: ["This approval is not open any more.", "Look at the thread."],
  5001: ["This approval has expired, so the answer did not count.", "If Codex still waits, it is shown anew."],
  5002: ["Someone else answered first.", "Nothing to do."],
  5003: ["What was approved is not what is asked now, so nothing was run.", "Read it again."],
  5004: ["Codex restarted; this approval no longer exists.", "Look at the thread."],
  5005: ["Codex no longer asks this.", "Nothing to do."],
  5006: ["That answer is not allowed here.", "Choose another."],
  5007: ["This can only be answered at the computer.", "Answer it there."],
  5008: ["The account's audit cannot be reached, and its policy does not allow going on without it.", "Try again in a minute."],
  5009: [
    "The computer wants a passkey for this, and knows none of this browser.",
    "Answer at the computer, or pair again and set a passkey up.",
  ],
  5010: ["The computer could not verify the passkey.", "Try again with the passkey that was set up for it."],

  6000: ["No Codex was found on the computer.", "Install it there, then run “flydex doctor”."],
  6001: ["Codex is not ready on the computer.", WAIT],
  6002: ["The computer's Codex is too old.", "Update it there."],
  6003: ["The computer's Codex is newer than its FlyDex, so it is read-only.", "Update FlyDex there to send."],
  6004: ["Codex refused the request.", "Look at the thread, then try again."],
  6005: ["Codex is overloaded.", "Wait a moment, then try again."],
  6006: ["There is no such thread on the computer.", "Go back to the list."],
  6007: ["Another program on the computer has this thread open.", "It can only be read here until that program closes it."],
  6008: [
    "This thread runs without approvals and with full access.",
    "The computer does not allow that from afar. Change the thread's policy there.",
  ],
  6009: ["No turn is running any more.", "Send it as a new turn."],
  6010: ["Another turn is running than the one you saw.", LOOK],
  6011: ["A turn is already running.", "Steer it, or stop it first."],
  6012: ["That folder is not on the computer's list.", "Add it there, or choose another."],
  6013: ["The message is too long.", "Shorten it and send it again."],
  6014: ["The message is empty.", "Write something first."],
  6015: ["This part of the history is too large to show here.", "Look at it on the computer."],
  6016: ["The place in the list is not known any more.", "It is read again from the newest."],

  7000: ["A local page that is not FlyDex's asked.", "Open FlyDex at its own address."],
  7001: ["Port 48163 is taken on the computer.", "Run “flydex doctor” there."],
  7002: ["FlyDex already runs for this user on the computer.", "Nothing to do."],
  7003: ["This computer is not paired.", NEW_CODE],
  7005: ["FlyDex's folder on the computer cannot be used.", "Run “flydex doctor” on the computer."],
  7006: ["The computer cannot reach the relay.", "Check its network, then run “flydex doctor” there."],
  7004: ["The server's address has no trusted name.", "Use https with a certificate."],

  8000: ["This invitation is not valid any more.", "Each one works once, for a week. Ask for a new one."],
  8001: ["An account needs an owner.", "Make somebody else owner first."],
  8002: ["You are a member of this account already.", "Go to it from your account page."],
  8003: ["The plan has no room for another computer.", "Remove one, or choose a larger plan. What is there works on."],
  8004: [
    "The plan has no room for another member.",
    "Take an invitation back, remove a member, or choose a larger plan. Whoever is there stays.",
  ],
  8005: ["A payment is due, so nothing can be added.", "Pay it where you subscribed. Everything that is there works on."],
  8006: ["The payment provider's event was not signed as it should be.", REPORT],
};

/** The sentence for a code; one that this version does not know is shown with its number. */
export function explain(problem: Problem | number): Explanation {
  const code = typeof problem === "number" ? problem : problem.code;
  const known = EXPLANATIONS[code];
  const reference = code > 0 ? `E${code}` : "";
  if (known === undefined) {
    return { title: `Something failed that this page does not know (number ${code}).`, next: REPORT, reference };
  }
  return { title: known[0], next: known[1], reference };
}

/** Whether this version has words for a code. */
export function isExplained(code: number): boolean {
  return code in EXPLANATIONS;
}
