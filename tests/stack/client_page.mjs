// A chat page on `@openclaw/gateway-client/browser`, bundled: what a web client of somebody's own would be.
//
//   start({url, token, carrier: "auth" | "subprotocol"})      connects as `webchat-ui`, and shows what happens:
//
//   #state      ready | away: why | stopped: why
//   #log        the conversation, from the history and then live; what was refused; gaps in the numbering, should there be any
//   #session    which session it is; written into it and confirmed, another one
//   #say #stop #list     say something, stop it, list the sessions
import {
  GatewayProtocolClient,
  PROTOCOL_VERSION,
  shouldPauseGatewayReconnect,
} from "@openclaw/gateway-client/browser";

document.body.innerHTML = `
  <p id="state">away</p>
  <form id="go"><input id="session" placeholder="session"></form>
  <form id="talk"><input id="say" placeholder="say"></form>
  <button id="stop">Stop</button> <button id="list">Sessions</button>
  <div id="log"></div>`;

const ENDS = ["final", "aborted", "error"];

const the = (id) => document.getElementById(id);
const said = new Map();
const live = new Set();
let client;

function state(text) {
  the("state").textContent = text;
}

function say(who, text, id = crypto.randomUUID()) {
  const line = said.get(id) ?? the("log").appendChild(document.createElement("div"));
  said.set(id, line);
  line.textContent = `${who}: ${text}`;
}

function textOf(message) {
  const content = message?.content ?? "";
  return typeof content === "string" ? content : content.map((block) => block.text ?? "").join("");
}

async function asked(method, params) {
  try {
    return await client.request(method, params);
  } catch (error) {
    say("refused", `${error.message} (${error.details?.code ?? error.code})`);
    return undefined;
  }
}

async function show() {
  the("log").replaceChildren();
  said.clear();
  live.clear();
  const history = await asked("chat.history", { sessionKey: the("session").value, limit: 50 });
  for (const message of history?.messages ?? []) say(message.role, textOf(message));
}

function happened({ event, payload }) {
  if (event !== "chat" || payload.sessionKey !== the("session").value) return;
  if (payload.state === "delta" || payload.state === "final") say("assistant", textOf(payload.message), payload.runId);
  if (ENDS.includes(payload.state)) live.delete(payload.runId);
  if (payload.state === "aborted") say("note", "stopped");
  if (payload.state === "error") say("error", payload.errorMessage);
}

async function greeted(hello) {
  the("session").value ||= hello.snapshot.sessionDefaults.mainSessionKey;
  await show();
  state("ready");
}

function socketTo(url, protocols, handlers) {
  const socket = new WebSocket(url, protocols);
  socket.onopen = () => handlers.open();
  socket.onmessage = ({ data }) => handlers.message(data);
  socket.onclose = ({ code, reason }) => handlers.close(code, reason);
  socket.onerror = () => handlers.error(new Error("the connection failed"));
  return {
    isOpen: () => socket.readyState === WebSocket.OPEN,
    send: (data) => socket.send(data),
    close: (code, reason) => socket.close(code, reason),
  };
}

function connectParams(auth) {
  return {
    minProtocol: PROTOCOL_VERSION,
    maxProtocol: PROTOCOL_VERSION,
    client: { id: "webchat-ui", version: "1.0.0", platform: navigator.platform, mode: "webchat" },
    role: "operator",
    scopes: ["operator.read", "operator.write"],
    caps: [],
    userAgent: navigator.userAgent,
    ...auth,
  };
}

globalThis.start = ({ url, token, carrier = "auth" }) => {
  const inProtocol = carrier === "subprotocol";
  const protocols = inProtocol ? ["openclaw", `bearer.${token}`] : [];
  client = new GatewayProtocolClient({
    createSocket: (handlers) => socketTo(url, protocols, handlers),
    createRequestId: () => crypto.randomUUID(),
    buildConnectPlan: () => (inProtocol ? {} : { auth: { token } }),
    buildConnectParams: connectParams,
    onHello: greeted,
    onConnectFailure: (error) => {
      const stop = shouldPauseGatewayReconnect({ details: error.details, tokenMismatchIsTerminal: true });
      state(`${stop ? "stopped" : "away"}: ${error.message}`);
      return { closeCode: 4008, closeReason: "connect failed", stop, reconnectDelayMs: error.retryAfterMs };
    },
    onClose: ({ code, reason, connectRequestSent, helloReceived }) => {
      if (!connectRequestSent || helloReceived) state(`away: ${code} ${reason}`);
    },
    resolveClose: () => ({ retry: true, notify: true }),
    onEvent: happened,
    onGap: ({ expected, received }) => say("gap", `${expected} was expected, ${received} came`),
    handshake: { mode: "require-challenge", timeoutMs: 15000 },
    reconnect: { initialMs: 500, multiplier: 1.5, maxMs: 2000 },
  });
  client.start();
};

the("go").onsubmit = async (event) => {
  event.preventDefault();
  await show();
};

the("talk").onsubmit = async (event) => {
  event.preventDefault();
  const message = the("say").value;
  const idempotencyKey = crypto.randomUUID();
  the("say").value = "";
  say("user", message);
  const started = await asked("chat.send", { sessionKey: the("session").value, message, idempotencyKey });
  if (started) live.add(started.runId);
};

the("stop").onclick = () => {
  for (const runId of live) asked("chat.abort", { sessionKey: the("session").value, runId });
};

the("list").onclick = async () => {
  const listed = await asked("sessions.list", {});
  if (listed) say("sessions", listed.sessions.map((row) => row.key).sort().join(" "));
};
