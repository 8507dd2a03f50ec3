/** The built app in real Chromium, with the server's own content security policy and the fake relay behind it. */
import { readFile } from "node:fs/promises";
import { type IncomingMessage, type Server, type ServerResponse, createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join } from "node:path";

import { type Browser, type BrowserContext, type Page, chromium } from "playwright-core";

import { base64url, fromBase64url } from "../protocol/bytes";
import { type PairingTerms, claimKeys, pairingMac, shortCode } from "../protocol/pairing";
import { ACCOUNT_ID, FakeMachine, FakeSession, MACHINE_ID } from "./fake";

const DIST = new URL("../../dist/", import.meta.url).pathname;
const ASSETS_RS = new URL("../../../server/src/assets.rs", import.meta.url);
const CLAIM_ID = "00000000-0000-7000-8000-0000000000cc";
const TYPES: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".webmanifest": "application/manifest+json",
};

/** An element by its test id. */
export const at = (id: string) => `[data-testid=${id}]`;

export interface PageOptions {
  readonly dark?: boolean;
  readonly wide?: boolean;
  readonly width?: number;
  readonly worker?: boolean;
}

export class Stage {
  readonly machine: FakeMachine;
  readonly browser: Browser;
  readonly origin: string;
  readonly secret = crypto.getRandomValues(new Uint8Array(32));
  readonly problems: string[] = [];
  /** Those that are open. */
  sessions: FakeSession[] = [];
  signedIn = false;
  /** Whether the machine is in the account. */
  machineListed = false;
  quarantined = false;
  /** A region beside the one that the machine is in. */
  otherRegion: string | undefined;
  regionPin: string | undefined;
  strictAudit = false;
  relayDown = false;
  deskSaysYes = false;
  readonly intents: unknown[] = [];
  /** Every request of the API, as method and path. */
  readonly asked: string[] = [];
  /** Requests that are answered by a failure. */
  readonly failing = new Set<string>();
  readonly #server: Server;
  readonly #closers: (() => void)[] = [];
  #terms: PairingTerms | undefined;
  #query = new URLSearchParams();
  #deviceMac = "";

  private constructor(machine: FakeMachine, browser: Browser, server: Server) {
    this.machine = machine;
    this.browser = browser;
    this.#server = server;
    this.origin = `http://localhost:${(server.address() as AddressInfo).port}`;
  }

  static async open(): Promise<Stage> {
    const csp = await contentSecurityPolicy();
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "localhost", resolve));
    const browser = await chromium.launch({
      executablePath: process.env["FLYDEX_CHROMIUM"] ?? "/usr/bin/chromium",
      args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
    });
    const stage = new Stage(await FakeMachine.create(), browser, server);
    server.on("request", (request, response) => void stage.#serve(request, response, csp));
    return stage;
  }

  async close(): Promise<void> {
    await this.browser.close();
    this.#server.close();
  }

  /** A phone, or a desk when `wide`; with the service worker when it is wanted. */
  async page(options: PageOptions = {}): Promise<Page> {
    const context = await this.browser.newContext({
      viewport: { width: options.width ?? (options.wide ? 1200 : 390), height: options.wide ? 800 : 844 },
      deviceScaleFactor: 2,
      hasTouch: !options.wide,
      isMobile: !options.wide,
      colorScheme: options.dark ? "dark" : "light",
      serviceWorkers: options.worker ? "allow" : "block",
    });
    await this.#relay(context);
    return this.tab(context);
  }

  /** Breaks every session. */
  breakSessions(): void {
    for (const close of this.#closers.splice(0)) close();
  }

  /** One more tab of the same browser. */
  async tab(context: BrowserContext): Promise<Page> {
    const page = await context.newPage();
    page.on("pageerror", (error) => this.problems.push(String(error)));
    page.on("console", (message) => {
      const expected = /401|503|ERR_FAILED|ERR_EMPTY_RESPONSE|WebSocket/.test(message.text());
      if (message.type() === "error" && !expected) this.problems.push(message.text());
    });
    return page;
  }

  /** A page that is signed in and paired, at the list of threads. */
  async paired(options: PageOptions = {}): Promise<Page> {
    this.signedIn = true;
    this.deskSaysYes = true;
    const page = await this.page(options);
    await page.goto(this.pairUrl());
    await page.waitForSelector(`${at("pair-status")}[data-state=done]`);
    await page.click(at("pair-open"));
    await page.waitForSelector(at("thread-row"));
    return page;
  }

  pairUrl(): string {
    return `${this.origin}/pair#${CLAIM_ID}.${base64url(this.secret)}`;
  }

  async #serve(request: IncomingMessage, response: ServerResponse, csp: string): Promise<void> {
    if (this.relayDown) {
      request.socket.destroy();
      return;
    }
    const { pathname, searchParams } = new URL(request.url ?? "/", this.origin);
    this.#query = searchParams;
    if (pathname === "/.well-known/flydex.json") {
      response.writeHead(200, { "content-type": "application/json" });
      response.end(JSON.stringify({ api_origin: this.origin }));
    } else if (pathname.startsWith("/api/")) await this.#answer(`${request.method} ${pathname}`, request, response);
    else await sendFile(pathname, response, csp);
  }

  async #answer(what: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const text = Buffer.concat(chunks).toString();
    this.asked.push(what);
    const answer = await this.#api(what, text === "" ? {} : (JSON.parse(text) as Record<string, unknown>));
    response.writeHead(answer === undefined ? 204 : (answer.status ?? 200), { "content-type": "application/json" });
    response.end(answer === undefined ? undefined : JSON.stringify(answer.json));
  }

  async #relay(context: BrowserContext): Promise<void> {
    await context.routeWebSocket("**/v1/session", (webSocket) => {
      if (this.relayDown) {
        void webSocket.close({ code: 1012 });
        return;
      }
      const session = new FakeSession(this.machine, (frame) => webSocket.send(Buffer.from(frame)));
      this.sessions.push(session);
      this.#closers.push(() => void webSocket.close({ code: 1012 }));
      webSocket.onClose(() => {
        this.sessions = this.sessions.filter((other) => other !== session);
      });
      webSocket.onMessage((data) => void session.up(new Uint8Array(data as Buffer)));
    });
  }

  async #api(what: string, body: Record<string, unknown>): Promise<{ status?: number; json?: unknown } | undefined> {
    const account = { account_id: ACCOUNT_ID, user_id: ACCOUNT_ID, role: "owner", account_name: "Mira's computers" };
    const key = { algorithm: "ed25519", key: base64url(this.machine.key.publicKey.bytes) };
    if (what === "GET /api/sign-in/options") return { json: { passkeys: true } };
    if (what === "POST /api/sign-in") this.signedIn = true;
    if (!this.signedIn) {
      const error = { code: "unauthenticated", number: 2000, message: "sign in first", retry: "refreshed" };
      return { status: 401, json: { error } };
    }
    if (this.failing.has(what)) {
      return { status: 503, json: { error: { code: "store_unavailable", number: 1011, message: "no database" } } };
    }
    switch (what) {
      case "POST /api/sign-in":
      case "GET /api/session":
        return { json: account };
      case "GET /api/regions":
        return { json: { regions: this.#regions() } };
      case "POST /api/tickets":
        return { json: { ticket: "ticket", grant: "grant", expires_at_ms: Date.now() + 60_000 } };
      case "GET /api/machines": {
        const machine = { machine_id: MACHINE_ID, label: "Studio", machine_key: key, region: "local", created_at_ms: 0, quarantined: this.quarantined, region_pin: this.regionPin };
        return { json: { machines: this.machineListed ? [machine] : [] } };
      }
      case `PUT /api/machines/${MACHINE_ID}/region-pin`:
        this.regionPin = (body["region"] as string | null) ?? undefined;
        return undefined;
      case "POST /api/audit/intents":
        this.intents.push(body);
        return { json: { audit_receipt: "v4.public.receipt" } };
      case "GET /api/devices":
        return { json: { devices: [{ device_id: "tablet", label: "Safari on iPad", created_at_ms: Date.now() - 9e7 }] } };
      case "GET /api/sessions":
        return { json: { sessions: [{ session_id: "s1", current: true, created_at_ms: Date.now() - 1e7 }] } };
      case "GET /api/ways-in": {
        const passkey = { passkey_id: "p1", label: "Safari on iPhone", created_at_ms: Date.now() - 9e7 };
        return { json: { passkeys: [passkey], identities: [], recovery_codes_left: 9 } };
      }
      case "POST /api/sign-in-links":
        return { json: { url: `${this.origin}/sign-in#AAAAAAAAAAAAAAAAAAAAAAAA`, expires_at_ms: Date.now() + 3_600_000 } };
      case "GET /api/audit": {
        const kind = this.#query.get("kind");
        const records = AUDIT.filter((record) => kind === null || record.kind === kind);
        // The server may have looked through many records and found none.
        const isFirstOfMany = kind !== null && !this.#query.has("before");
        return { json: isFirstOfMany ? { records: [], next_before: 50 } : { records } };
      }
      case "GET /api/audit/policy":
        return { json: { strict: this.strictAudit } };
      case "PUT /api/audit/policy":
        this.strictAudit = body["strict"] as boolean;
        return undefined;
      case "GET /api/audit/head":
        return { json: { number: 3, head: "v4.public.head" } };
      case `POST /api/claims/${CLAIM_ID}/redeem`:
        return { json: this.#redeem(body, key) };
      case `POST /api/claims/${CLAIM_ID}/finalize`:
        this.#deviceMac = body["device_mac"] as string;
        return undefined;
      case "GET /api/local-connect/00000000-0000-7000-8000-0000000000dd":
        return { json: await this.#localConnect(key) };
      case "GET /api/accounts":
        return { json: { accounts: [] } };
      case "GET /api/members":
        return { json: { members: [] } };
      case "GET /api/invitations":
        return { json: { invitations: [] } };
      case "GET /api/billing":
        return { json: { plan: "none", machines: { used: 1 }, seats: { used: 1 } } };
      default:
        return undefined;
    }
  }

  #regions(): object[] {
    const session_url = `${this.origin.replace("http", "ws")}/v1/session`;
    return ["local", this.otherRegion].flatMap((region) => (region === undefined ? [] : [{ region, session_url }]));
  }

  #redeem(body: Record<string, unknown>, key: { key: string }): object {
    const deviceKey = fromBase64url((body["device_key"] as { key: string }).key);
    const expiresAtMs = Date.now() + 120_000;
    this.#terms = {
      origin: this.origin,
      claimId: CLAIM_ID,
      expiresAtMs,
      accountId: ACCOUNT_ID,
      machineId: MACHINE_ID,
      role: "owner",
      machineKey: this.machine.key.publicKey,
      deviceKey: { algorithm: "ed25519", bytes: deviceKey ?? new Uint8Array() },
    };
    return {
      local_connect_id: "00000000-0000-7000-8000-0000000000dd",
      machine_id: MACHINE_ID,
      machine_key: key,
      machine_label: "Studio",
      account_id: ACCOUNT_ID,
      role: "owner",
      origin: this.origin,
      expires_at_ms: expiresAtMs,
    };
  }

  async #localConnect(key: object): Promise<object> {
    const base = { local_connect_id: "x", machine_id: MACHINE_ID, role: "owner", expires_at_ms: Date.now() + 600_000 };
    if (this.#terms === undefined || !this.deskSaysYes || this.#deviceMac === "") {
      await new Promise((resolve) => setTimeout(resolve, 100));
      return { ...base, status: "awaiting_browser_finalize" };
    }
    const keys = await claimKeys(this.secret);
    const mac = base64url(await pairingMac(this.#terms, keys.machineToDevice));
    this.machineListed = true;
    return { ...base, status: "codex_ready", machine: { key, label: "Studio", mac } };
  }

  /** What the desk's screen shows. */
  code(): Promise<string> {
    if (this.#terms === undefined) throw new Error("not redeemed");
    return shortCode(this.#terms);
  }
}

const AUDIT = ["approval_answered", "device_paired", "session_opened"].map((kind, index) => ({
  number: 3 - index,
  audit_id: `a${index}`,
  kind,
  at_ms: Date.now() - index * 3_600_000,
  deferred: false,
  machine_id: MACHINE_ID,
  device_id: "tablet-key-fingerprint",
  ...(index === 0 ? { decision: "accept" } : {}),
}));

async function sendFile(path: string, response: ServerResponse, csp: string): Promise<void> {
  const file = extname(path) === "" ? "index.html" : path.slice(1);
  const body = await readFile(join(DIST, file)).catch(() => undefined);
  const type = TYPES[extname(file)] ?? "application/octet-stream";
  response.writeHead(body === undefined ? 404 : 200, { "content-type": type, "content-security-policy": csp });
  response.end(body);
}

/** The policy as the server sends it, so that what passes here passes there. */
async function contentSecurityPolicy(): Promise<string> {
  const source = await readFile(ASSETS_RS, "utf8");
  const match = /CONTENT_SECURITY_POLICY: &str = "([^"]*)"/.exec(source);
  if (match?.[1] === undefined) throw new Error("the server's content security policy was not found");
  return match[1].replaceAll(/\\\n\s*/g, "");
}
