// Expressions of cut-out faces with onnxruntime-web, under Node:
//
//   npm install onnxruntime-web
//   node faces.mjs MODEL.onnx FACE.rgb ...
//
// A .rgb file holds the bytes of one face, row by row, red, green, blue: `convert face.jpg -resize 48x48! -depth 8 face.rgb`
// writes one. In a page the same bytes come from a canvas: every fourth of getImageData(0, 0, side, side).data left out.

import { readFile } from 'node:fs/promises';
import * as ort from 'onnxruntime-web';

ort.env.wasm.numThreads = 1;
const [model, ...paths] = process.argv.slice(2);
const session = await ort.InferenceSession.create(new Uint8Array(await readFile(model)));
for (const path of paths) {
  const bytes = new Uint8Array(await readFile(path));
  const side = Math.round(Math.sqrt(bytes.length / 3));
  const faces = new ort.Tensor('uint8', bytes, [1, side, side, 3]);
  const { probabilities } = await session.run({ faces });
  const best = probabilities.data.indexOf(Math.max(...probabilities.data));
  console.log(path, best, probabilities.data[best].toFixed(4));
}
