// Uses TensorFlow.js, the reference implementation, with its own reading of the weights. IN and OUT are raw float32.
//   node tfjs_run.mjs MODULES MODEL.json IN OUT SHAPE NODES   runs a graph model; OUT: the values of the NODES
//   node tfjs_run.mjs MODULES MODEL.json OUT                  OUT: all weights, one after the other
import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';

const [modules, file, ...rest] = process.argv.slice(2);
const tf = createRequire(path.join(modules, 'x.js'))('@tensorflow/tfjs');
await tf.setBackend('cpu');
const model = JSON.parse(fs.readFileSync(file));
const bytes = tensors => Buffer.concat(tensors.map(each => Buffer.from(Float32Array.from(each.dataSync()).buffer)));
const dataOf = ({ paths }) => {
  const data = Buffer.concat(paths.map(name => fs.readFileSync(path.join(path.dirname(file), name))));
  return data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength);
};
const groups = model.weightsManifest;
if (rest.length === 1) {
  const decoded = groups.map(group => tf.io.decodeWeights(dataOf(group), group.weights));
  const tensors = groups.flatMap(({ weights }, index) => weights.map(({ name }) => decoded[index][name]));
  fs.writeFileSync(rest[0], bytes(tensors));
} else {
  const [input, output, shape, nodes] = rest;
  const [{ weights }] = groups;
  const graph = await tf.loadGraphModel(tf.io.fromMemory({ ...model, weightSpecs: weights, weightData: dataOf(groups[0]) }));
  const data = fs.readFileSync(input);
  const x = tf.tensor(new Float32Array(data.buffer, data.byteOffset, data.length / 4), JSON.parse(shape));
  fs.writeFileSync(output, bytes([graph.execute(x, nodes.split(','))].flat()));
}
