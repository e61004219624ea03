// Speaks the whole of faqwire.v1 through any WebSocket that has the browser's interface, and reports what came of it.
// Nothing of faqwire's own is used: what is known of the protocol is what docs/protocol.md says.

const PROTOCOL = "faqwire.v1";

// One connection: what came, and promises of what will.
class Line {
  constructor(WebSocket, url, protocols) {
    this.messages = [];
    this.waiting = [];
    this.socket = new WebSocket(url, protocols);
    this.opened = new Promise((resolve) => {
      this.socket.addEventListener("open", () => resolve(true));
      this.socket.addEventListener("error", () => resolve(false));
    });
    this.closed = new Promise((resolve) => {
      this.socket.addEventListener("close", (event) => resolve({ code: event.code, wasClean: event.wasClean }));
    });
    this.socket.addEventListener("message", (event) => {
      this.messages.push(event.data);
      this.waiting = this.waiting.filter((one) => !one());
    });
  }

  send(message) {
    this.socket.send(JSON.stringify(message));
  }

  // The first messages for which `wanted` holds, once there are so many.
  all(wanted, count) {
    return new Promise((resolve) => {
      const look = () => {
        const found = this.messages.map((text) => JSON.parse(text)).filter(wanted);
        if (found.length >= count) resolve(found.slice(0, count));
        return found.length >= count;
      };
      if (!look()) this.waiting.push(look);
    });
  }

  async one(wanted) {
    return (await this.all(wanted, 1))[0];
  }
}

const byId = (id) => (message) => message.id === id;

export async function refused(WebSocket, url) {
  const line = new Line(WebSocket, url, [PROTOCOL]);
  return { opened: await line.opened, ...(await line.closed) };
}

export async function run(WebSocket, url) {
  const line = new Line(WebSocket, url, [PROTOCOL]);
  await line.opened;
  const protocol = line.socket.protocol;
  const welcome = await line.one((message) => message.type === "welcome");
  line.send({ type: "hello", client: "scenario/1", locale: "en-GB", visitor: "someone" });

  // Many in flight: every one of them ends once.
  const asked = Array.from({ length: 40 }, (_, number) => `ask ${number}`);
  for (const id of asked) line.send({ type: "ask", id, text: `where is the order with ${id}, please`, budget_ms: 10000 });
  const answers = await line.all((message) => asked.includes(message.id), asked.length);

  // A question that equals a phrasing, and what its visitor says of the answer.
  line.send({ type: "ask", id: "known", text: "Where is my order?" });
  const known = await line.one(byId("known"));
  line.send({ type: "feedback", id: "said", ref: known.ref, helpful: true, comment: "grüße 👍" });
  const said = await line.one(byId("said"));

  line.send({ type: "suggest", id: "typing", text: "where is" });
  const typing = await line.one(byId("typing"));
  line.send({ type: "ping", id: "there?" });
  const pong = await line.one(byId("there?"));

  // Cancelled in the same breath; the cancels of those that were answered before are errors without an id.
  const dropped = Array.from({ length: 30 }, (_, number) => `drop ${number}`);
  for (const id of dropped) {
    line.send({ type: "ask", id, text: `may i give back what i bought, says ${id}`, budget_ms: 10000 });
    line.send({ type: "cancel", id });
  }
  const drops = await line.all((message) => dropped.includes(message.id), dropped.length);

  // What is wrong is said, and the connection goes on; also behind a binary frame.
  line.send({ type: "ask", id: "long", text: "x".repeat(welcome.limits.max_text + 1) });
  line.send({ type: "shout", id: "odd" });
  line.socket.send(new Uint8Array([1, 2, 3]));
  const errors = [
    await line.one(byId("long")),
    await line.one(byId("odd")),
    await line.one((message) => message.type === "error" && message.message.includes("binary")),
  ];
  line.send({ type: "ping", id: "last" });
  await line.one(byId("last"));
  line.socket.close(1000, "done");
  const closed = await line.closed;

  // One frame larger than the server says that it takes.
  const large = new Line(WebSocket, url, [PROTOCOL]);
  await large.opened;
  large.socket.send("x".repeat(welcome.limits.max_frame + 1));
  const tooLarge = await large.closed;

  const messages = [...line.messages, ...large.messages];
  return { protocol, welcome, answers, known, said, typing, pong, drops, errors, closed, tooLarge, messages };
}
