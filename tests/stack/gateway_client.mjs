// A user's client: `@openclaw/gateway-client`, driven by JSON lines on stdin.
//
//   node gateway_client.mjs PACKAGES
//   ← {"id", "do": "connect", "options": {"url", "token", …}}          → {"id", "ok": true, "result": <hello>} once connected
//   ← {"id", "do": "request", "method", "params", "expectFinal"}       → {"id", "ok", "result" | "error"}
//   ← {"id", "do": "close"}                                            → {"id", "ok": true}
//   → {"event": <event frame>} and {"state": "hello" | "connect-error" | "paused" | "closed" | "gap", …} as they happen
//
// `connect` is answered with an error when the client gives up; while it retries by itself, it waits. Ends with its stdin.
import { createRequire } from "node:module";
import path from "node:path";
import readline from "node:readline";
import { pathToFileURL } from "node:url";

const require = createRequire(path.join(process.argv[2], "package.json"));
const { GatewayClient } = await import(pathToFileURL(require.resolve("@openclaw/gateway-client")));

console.log = console.info = console.error;

let client;

function tell(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

function described(error) {
  const { message, code, gatewayCode, details, retryable, retryAfterMs } = error;
  return { message, code: gatewayCode ?? code, details, retryable, retryAfterMs };
}

function connect({ options }) {
  return new Promise((resolve, reject) => {
    let latest = new Error("the client paused before it connected");
    client = new GatewayClient({
      deviceIdentity: null,
      ...options,
      onHelloOk: (hello) => {
        tell({ state: "hello", hello });
        resolve(hello);
      },
      onConnectError: (error) => {
        latest = error;
        tell({ state: "connect-error", error: described(error) });
      },
      onReconnectPaused: (info) => {
        tell({ state: "paused", ...info });
        reject(latest);
      },
      onClose: (code, reason) => tell({ state: "closed", code, reason }),
      onGap: (gap) => tell({ state: "gap", ...gap }),
      onEvent: (event) => tell({ event }),
    });
    client.start();
  });
}

const commands = {
  connect,
  request: ({ method, params, expectFinal, timeoutMs }) => client.request(method, params, { expectFinal, timeoutMs }),
  close: () => client?.stopAndWait(),
};

function answer(command) {
  return Promise.resolve()
    .then(() => commands[command.do](command))
    .then((result) => tell({ id: command.id, ok: true, result: result ?? null }))
    .catch((error) => tell({ id: command.id, ok: false, error: described(error) }));
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  answer(JSON.parse(line));
}
process.exit(0);
