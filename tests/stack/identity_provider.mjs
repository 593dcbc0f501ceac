// A real OpenID provider (the npm package `oidc-provider`) that takes any login name, driven by JSON lines on stdin.
//
//   node identity_provider.mjs PACKAGES
//   ← {"id", "do": "start", "port", "keys", "lifetime", "redirectUris"}  → {"id", "ok": true, "result": {"port", "keys"}}
//   ← {"id", "do": "rotate", "keep"}                                     → {"id", "ok": true, "result": {"keys"}}
//
// `keys` are private JWKs, first one first: given back to "start" they make a restarted provider the same one. Ends with
// its stdin.
import crypto from "node:crypto";
import http from "node:http";
import { createRequire } from "node:module";
import path from "node:path";
import readline from "node:readline";
import { pathToFileURL } from "node:url";

const require = createRequire(path.join(process.argv[2], "package.json"));
const { Provider } = await import(pathToFileURL(require.resolve("oidc-provider")));

// stdout carries answers only.
console.log = console.info = console.error;

const CLIENT_ID = "openclaw";
const AUDIENCE = "openclaw";
const RESOURCE = "urn:openclaw:gateway";
const ALGORITHMS = ["RS256", "ES256"];

const state = { settings: undefined, keys: [], handle: undefined, server: undefined };

function newKeys() {
  const pairs = [
    ["RS256", crypto.generateKeyPairSync("rsa", { modulusLength: 2048 })],
    ["ES256", crypto.generateKeyPairSync("ec", { namedCurve: "P-256" })],
  ];
  return pairs.map(([alg, { privateKey }]) => ({
    ...privateKey.export({ format: "jwk" }),
    alg,
    use: "sig",
    kid: crypto.randomUUID(),
  }));
}

function rolesOf(login) {
  if (login.startsWith("admin-")) return ["administrator"];
  return [login.startsWith("guest-") ? "guest" : "user"];
}

function profileOf(login) {
  return {
    name: `Name of ${login}`,
    preferred_username: login,
    email: `${login}@example.com`,
    roles: rolesOf(login),
  };
}

// What a token request may ask for beside the standard's parameters, for tests: lifetime and algorithm.
function wished(ctx, name, fallback) {
  return ctx.oidc?.body?.[name] ?? fallback;
}

function configuration() {
  const { lifetime, redirectUris } = state.settings;
  return {
    clients: [
      {
        client_id: CLIENT_ID,
        application_type: "native",
        token_endpoint_auth_method: "none",
        grant_types: ["authorization_code", "refresh_token"],
        redirect_uris: ["http://127.0.0.1/callback", ...redirectUris],
      },
    ],
    jwks: { keys: state.keys },
    cookies: { keys: [crypto.randomBytes(16).toString("hex")] },
    claims: { openid: ["sub"], profile: ["name", "preferred_username", "roles"], email: ["email"] },
    conformIdTokenClaims: false,
    enabledJWA: { idTokenSigningAlgValues: ALGORITHMS },
    features: {
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => RESOURCE,
        useGrantedResource: () => true,
        getResourceServerInfo: (ctx) => ({
          scope: "openid profile email offline_access",
          audience: AUDIENCE,
          accessTokenFormat: "jwt",
          accessTokenTTL: Number(wished(ctx, "stack_lifetime", lifetime)),
          jwt: { sign: { alg: wished(ctx, "stack_algorithm", "RS256") } },
        }),
      },
    },
    findAccount: (_ctx, login) => ({
      accountId: login,
      claims: () => ({ sub: login, ...profileOf(login) }),
    }),
    extraTokenClaims: (_ctx, token) => (token.accountId ? profileOf(token.accountId) : undefined),
    loadExistingGrant: async (ctx) => {
      const { client, session, provider } = ctx.oidc;
      const grant = new provider.Grant({ clientId: client.clientId, accountId: session.accountId });
      grant.addOIDCScope("openid profile email offline_access");
      grant.addResourceScope(RESOURCE, "openid profile email offline_access");
      await grant.save();
      return grant;
    },
    interactions: { url: (_ctx, interaction) => `/login/${interaction.uid}` },
    ttl: { Session: 3600, Grant: 3600, Interaction: 600, IdToken: lifetime },
  };
}

// The login page: a name, no password. `login_hint` answers it at once.
async function login(provider, request, response) {
  const { params } = await provider.interactionDetails(request, response);
  const query = new URL(request.url, "http://localhost").searchParams;
  const name = params.login_hint || query.get("name");
  if (name) {
    const result = { login: { accountId: name }, consent: {} };
    return provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
  }
  response.setHeader("Content-Type", "text/html; charset=utf-8");
  return response.end('<form><label>Name <input name="name" autofocus></label> <button>Log in</button></form>');
}

function publish() {
  const provider = new Provider(`http://127.0.0.1:${state.settings.port}`, configuration());
  const callback = provider.callback();
  state.handle = (request, response) => {
    if (!request.url.startsWith("/login/")) return callback(request, response);
    return login(provider, request, response).catch((error) => {
      response.statusCode = error.statusCode ?? 500;
      response.end(String(error));
    });
  };
}

async function start(settings) {
  state.server = http.createServer((request, response) => state.handle(request, response));
  await new Promise((resolve, reject) => {
    state.server.once("error", reject);
    state.server.listen(settings.port, "127.0.0.1", resolve);
  });
  state.settings = { ...settings, port: state.server.address().port };
  state.keys = settings.keys.length ? settings.keys : newKeys();
  publish();
  return { port: state.settings.port, keys: state.keys };
}

function rotate({ keep }) {
  state.keys = [...newKeys(), ...(keep ? state.keys : [])];
  publish();
  return { keys: state.keys };
}

const commands = { start, rotate };

for await (const line of readline.createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  try {
    const result = await commands[command.do](command);
    process.stdout.write(`${JSON.stringify({ id: command.id, ok: true, result })}\n`);
  } catch (error) {
    process.stdout.write(`${JSON.stringify({ id: command.id, ok: false, error: { message: String(error) } })}\n`);
  }
}
process.exit(0);
