// Unpacks the Chromium that npm's @sparticuz/chromium carries, with the libraries that it needs beside it.
//
//     TMPDIR=FOLDER node tests/server/clients/unpack.mjs FOLDER
//
// FOLDER is where `npm install @sparticuz/chromium` was run. The package is made for a place without such libraries, and
// unpacks them only where it believes to be there.
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const folder = resolve(process.argv[2]);
process.env.AWS_LAMBDA_JS_RUNTIME = `nodejs${process.versions.node.split(".")[0]}.x`;
const entry = join(folder, "node_modules", "@sparticuz", "chromium", "build", "esm", "index.js");
const { default: chromium } = await import(pathToFileURL(entry));
console.log(await chromium.executablePath());
