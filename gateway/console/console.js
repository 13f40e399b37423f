// The console: reads the management API with the key that was typed in, which stays in this tab's session storage.
"use strict";

const $ = (id) => document.getElementById(id);
const key = () => sessionStorage.getItem("moorage-key");
let namespace = null, selected = null, timer = null;

async function call(method, path, body) {
  const answer = await fetch(path, {
    method,
    headers: { Authorization: `Bearer ${key()}`, ...(body ? { "Content-Type": "application/json" } : {}) },
    body: body ? JSON.stringify(body) : undefined,
  });
  if (answer.ok) return answer.status === 204 ? null : answer.json();
  const told = await answer.json().catch(() => ({}));
  throw new Error(typeof told.error === "string" ? told.error : told.error?.message ?? `HTTP ${answer.status}`);
}

function say(problem) {
  $("problem").textContent = problem ?? "";
  $("problem").hidden = !problem;
}

function row(cells, attributes = {}) {
  const line = document.createElement("tr");
  for (const cell of cells) {
    const box = document.createElement("td");
    if (cell && cell.className) box.className = cell.className;
    box.textContent = cell && cell.text !== undefined ? cell.text : cell ?? "";
    line.append(box);
  }
  Object.entries(attributes).forEach(([name, value]) => line.setAttribute(name, value));
  return line;
}

async function refresh() {
  const { items } = await call("GET", `/manage/v2/endpoint/${namespace}`);
  $("endpoints").replaceChildren(...items.map((endpoint) => {
    const status = endpoint.status;
    const line = row([
      endpoint.name,
      { text: status.state, className: `state ${status.state}` },
      `${status.readyReplica ?? 0} of ${status.targetReplica ?? 0}`,
      (endpoint.model.members ?? []).map((member) => member.name).join(", ") || endpoint.model.repository || Object.keys(endpoint.model.image)[0],
      `${endpoint.compute.instanceType} ${endpoint.compute.instanceSize}`,
      [status.reason, status.message].filter(Boolean).join(": "),
    ], { "aria-selected": endpoint.name === selected, tabindex: 0 });
    line.onclick = () => select(endpoint.name);
    line.onkeydown = (event) => { if (event.key === "Enter") select(endpoint.name); };
    return line;
  }));
  $("none").hidden = items.length > 0;
  const endpoint = items.find((item) => item.name === selected);
  $("details").hidden = !endpoint;
  if (endpoint) await details(endpoint);
}

async function details(endpoint) {
  const path = `/manage/v2/endpoint/${namespace}/${endpoint.name}`;
  $("name").textContent = endpoint.name;
  $("url").textContent = endpoint.status.url ?? "(no address while paused)";
  const commands = { paused: ["resume"], failed: ["resume"], scaledToZero: ["resume", "pause"] }[endpoint.status.state] ?? ["pause", "restart", "scale-to-zero"];
  $("actions").replaceChildren(...commands.map((command) => {
    const button = document.createElement("button");
    button.textContent = command;
    button.onclick = () => call("POST", `${path}/${command}`).then(() => { say(); return refresh(); }).catch((error) => say(error.message));
    return button;
  }));
  const { items } = await call("GET", `${path}/events`);
  $("events").replaceChildren(...items.slice(-30).reverse().map((event) =>
    row([new Date(event.at).toLocaleTimeString(), event.kind, event.revision ?? "", event.message])));
  const base = endpoint.status.url ?? "";
  $("sample").textContent = `from openai import OpenAI

client = OpenAI(base_url="${base}/v1", api_key="<an API key of this endpoint>")
answer = client.chat.completions.create(
    model="${endpoint.name}", messages=[{"role": "user", "content": "Hello!"}]
)
print(answer.choices[0].message.content)`;
}

function select(name) {
  selected = name;
  $("answer").textContent = "";
  refresh().catch((error) => say(error.message));
}

async function chat(text) {
  const answer = await fetch(`/endpoints/${namespace}/${selected}/v1/chat/completions`, {
    method: "POST",
    headers: { Authorization: `Bearer ${key()}`, "Content-Type": "application/json" },
    body: JSON.stringify({ model: selected, stream: true, max_tokens: 512, messages: [{ role: "user", content: text }] }),
  });
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    throw new Error(told.error?.message ?? `HTTP ${answer.status}`);
  }
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", finished = false;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line === "data: [DONE]") finished = true;
      else if (line.startsWith("data: ")) {
        const event = JSON.parse(line.slice(6));
        if (event.error) throw new Error(event.error.message);
        $("answer").textContent += event.choices?.[0]?.delta?.content ?? "";
      }
    }
  }
  if (!finished) throw new Error("The answer broke off before its end.");
}

async function start() {
  const me = await call("GET", "/manage/api/whoami-v2");
  namespace = me.name;
  document.querySelector("main").hidden = false;
  $("sign-in").hidden = true;
  $("sign-out").hidden = false;
  await refresh();
  timer = setInterval(() => refresh().then(() => say()).catch((error) => say(error.message)), 3000);
}

$("sign-in").onsubmit = (event) => {
  event.preventDefault();
  sessionStorage.setItem("moorage-key", $("key").value.trim());
  $("key").value = "";
  start().then(() => say()).catch((error) => { sessionStorage.removeItem("moorage-key"); say(error.message); });
};
$("sign-out").onclick = () => { sessionStorage.removeItem("moorage-key"); clearInterval(timer); location.reload(); };
$("chat").onsubmit = (event) => {
  event.preventDefault();
  $("answer").textContent = "";
  chat($("prompt").value).then(() => say()).catch((error) => say(error.message));
};
if (key()) start().catch((error) => say(error.message));
