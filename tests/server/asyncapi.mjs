// Reads an AsyncAPI document with AsyncAPI's own parser, prints what is wrong, and fails where something is an error.
//
//     node tests/server/asyncapi.mjs FOLDER DOCUMENT
//
// FOLDER is where `npm install @asyncapi/parser` was run.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";

const [folder, file] = process.argv.slice(2);
const { Parser } = createRequire(join(resolve(folder), "package.json"))("@asyncapi/parser");
const { document, diagnostics } = await new Parser().parse(readFileSync(file, "utf8"));
for (const found of diagnostics) {
  console.log(`${["error", "warning", "information", "hint"][found.severity]}: ${found.path.join(".")}: ${found.message}`);
}
if (document === undefined || diagnostics.some((found) => found.severity === 0)) {
  process.exit(1);
}
console.log(`valid: ${document.allOperations().length} operations, ${document.allMessages().length} messages`);
