// A Node program that goes through a proxy with the standard library alone: Node's own `https` and
// `fetch` (up to Node 22) ignore proxy variables, so it asks for the tunnel itself. It honours
// HTTPS_PROXY; Node reads NODE_EXTRA_CA_CERTS. With `--fetch` it uses the built-in fetch instead.
import http from "node:http";
import https from "node:https";
import tls from "node:tls";

const [url, mode] = process.argv.slice(2);

function fail(text) {
  console.error(text);
  process.exitCode = 1;
}

async function withFetch() {
  try {
    const answer = await fetch(url);
    console.log(answer.status, await answer.text());
  } catch (error) {
    fail(`fetch failed: ${error.cause?.code ?? error.message}`);
  }
}

function withTunnel() {
  const target = new URL(url);
  const proxy = new URL(process.env.HTTPS_PROXY);
  const secret = `${decodeURIComponent(proxy.username)}:${decodeURIComponent(proxy.password)}`;
  const authority = `${target.hostname}:${target.port || 443}`;
  const ask = http.request({
    host: proxy.hostname,
    port: proxy.port,
    method: "CONNECT",
    path: authority,
    headers: {
      Host: authority,
      "Proxy-Authorization": `Basic ${Buffer.from(secret).toString("base64")}`,
    },
  });
  ask.on("error", (error) => fail(`proxy: ${error.message}`));
  ask.on("connect", (answer, socket) => {
    if (answer.statusCode !== 200) {
      socket.destroy();
      fail(`CONNECT: ${answer.statusCode} ${answer.statusMessage}`);
      return;
    }
    const secure = tls.connect({ socket, servername: target.hostname });
    const request = https.get(url, { createConnection: () => secure }, (reply) => {
      let body = "";
      reply.on("data", (chunk) => (body += chunk));
      reply.on("end", () => {
        const line = `${reply.statusCode} ${reply.statusMessage} ${body}`;
        if (reply.statusCode === 200) console.log(line);
        else fail(line);
      });
    });
    request.on("error", (error) => fail(`request: ${error.message}`));
  });
  ask.end();
}

if (mode === "--fetch") await withFetch();
else withTunnel();
