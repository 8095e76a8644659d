// Receive Lockbox's webhooks: verify each call, answer at once, and take each event once. Node 18 or later, no packages.
//
//     node receiver.mjs 127.0.0.1:8080 webhook.secret
//
// The file holds the secret that Lockbox showed; while an old one is still valid, both, one a line. In production, put a
// proxy with TLS in front, and keep what was taken in your database, in one transaction with what you do because of it.

import { createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";

const MOST_BYTES = 256 * 1024;
const MOST_SECONDS = 300;
const LEAST_SECRET = 24;
const secrets = readFileSync(process.argv[3], "utf8")
  .trim()
  .split(/\s+/)
  .map((one) => Buffer.from(one.replace(/^whsec_/, ""), "base64"));
if (secrets.some((one) => one.length < LEAST_SECRET)) throw new Error("the file does not hold what Lockbox showed");
const taken = new Set();

// Whether one of the signatures is ours, over this id, time and body, and no older than five minutes.
function isSigned(id, sentAt, signatures, body) {
  if (!/^[0-9]+$/.test(sentAt) || Math.abs(Date.now() / 1000 - Number(sentAt)) > MOST_SECONDS) return false;
  const good = secrets.map((secret) =>
    Buffer.from("v1," + createHmac("sha256", secret).update(`${id}.${sentAt}.`).update(body).digest("base64")),
  );
  return signatures.split(" ").some((one) => {
    const given = Buffer.from(one);
    return good.some((ours) => ours.length === given.length && timingSafeEqual(ours, given));
  });
}

// Do what the event is for. Never reopen what a higher sequence of the same request has ended.
function handle(event) {
  console.log(`${event.sequence} ${event.type} ${event.data.state ?? "-"}`);
}

async function receive(request) {
  if (request.method !== "POST") return 405;
  if (!(Number(request.headers["content-length"]) <= MOST_BYTES)) return 413;
  const parts = [];
  for await (const part of request) parts.push(part);
  const body = Buffer.concat(parts);
  const header = (name) => request.headers[name] ?? "";
  const id = header("webhook-id");
  if (!isSigned(id, header("webhook-timestamp"), header("webhook-signature"), body)) return 401;
  if (!taken.has(id)) {
    // It came before if our answer was lost.
    handle(JSON.parse(body));
    taken.add(id);
  }
  return 204;
}

const [, host, port] = process.argv[2].match(/^(.*):(\d+)$/);
const server = createServer({ requestTimeout: 10_000 }, async (request, response) => {
  const status = await receive(request).catch(() => 500);
  response.writeHead(status, { "content-length": 0, connection: "close" }).end();
});
server.listen(Number(port), host);
