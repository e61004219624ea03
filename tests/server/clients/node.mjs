// Runs the scenario with a WebSocket from npm, holds every message to the JSON Schema with Ajv, and prints the report.
//
//     node tests/server/clients/node.mjs FOLDER ws|undici URL SCHEMA
//
// FOLDER is where `npm install ws undici ajv` was run.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { run } from "./scenario.mjs";

const [folder, library, url, schema] = process.argv.slice(2);
const require = createRequire(join(resolve(folder), "package.json"));
const { WebSocket } = require(library);
const Ajv = require("ajv/dist/2020");
const ajv = new Ajv({ strict: true, strictTypes: false });
ajv.addSchema(JSON.parse(readFileSync(schema, "utf8")), "faqwire");
const validate = ajv.compile({ $ref: "faqwire#/$defs/ServerMessage" });
const report = await run(WebSocket, url);
for (const text of report.messages) {
  if (!validate(JSON.parse(text))) {
    console.error(text, validate.errors);
    process.exit(1);
  }
}
report.validated = report.messages.length;
process.stdout.write(JSON.stringify(report), () => process.exit(0));
