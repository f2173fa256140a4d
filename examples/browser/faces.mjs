// Faces and their expressions in a browser, with onnxruntime-web and nothing else.
//
// `detect` runs YuNet (face_detection_yunet_2023mar.onnx of the OpenCV zoo), `classify` a network that
// `fer-jax export --format onnx` wrote. Both take an ImageData and keep nothing.

const DETECTOR_SIDE = 640; // px, the input of YuNet
const STRIDES = [8, 16, 32]; // px, of its three grids
const MIN_CONFIDENCE = 0.8;
const MOST_OVERLAP = 0.3; // of two boxes; of more, the less certain box is dropped

// The boxes of faces, [{ x, y, width, height, confidence }] in pixels of the picture, the most certain first.
export async function detect(ort, session, picture) {
  const shrink = Math.max(1, Math.max(picture.width, picture.height) / DETECTOR_SIDE);
  const wide = Math.max(1, Math.round(picture.width / shrink));
  const high = Math.max(1, Math.round(picture.height / shrink));
  const scaled = sample(picture, 0, 0, shrink, wide, high);
  const area = DETECTOR_SIDE * DETECTOR_SIDE;
  const input = new Float32Array(3 * area); // blue, green and red planes, 0 to 255; zeros to the right and below
  for (let y = 0; y < high; y++) {
    for (let x = 0; x < wide; x++) {
      for (let channel = 0; channel < 3; channel++) {
        input[(2 - channel) * area + y * DETECTOR_SIDE + x] = scaled[3 * (y * wide + x) + channel];
      }
    }
  }
  const results = await session.run({
    [session.inputNames[0]]: new ort.Tensor('float32', input, [1, 3, DETECTOR_SIDE, DETECTOR_SIDE]),
  });
  const boxes = [];
  for (const stride of STRIDES) {
    const columns = DETECTOR_SIDE / stride;
    const [classes, objects, offsets] = ['cls', 'obj', 'bbox'].map((head) => results[`${head}_${stride}`].data);
    for (let cell = 0; cell < columns * columns; cell++) {
      const confidence = Math.sqrt(clamp(classes[cell]) * clamp(objects[cell]));
      if (confidence < MIN_CONFIDENCE) continue;
      const [right, down, logWidth, logHeight] = offsets.subarray(4 * cell, 4 * cell + 4);
      const [width, height] = [Math.exp(logWidth) * stride, Math.exp(logHeight) * stride];
      const x = ((cell % columns) + right) * stride - width / 2;
      const y = (Math.floor(cell / columns) + down) * stride - height / 2;
      boxes.push({ x: x * shrink, y: y * shrink, width: width * shrink, height: height * shrink, confidence });
    }
  }
  boxes.sort((one, other) => other.confidence - one.confidence);
  const kept = [];
  for (const box of boxes) {
    if (kept.every((other) => overlap(box, other) <= MOST_OVERLAP)) kept.push(box);
  }
  return kept;
}

// The probabilities of each face: an array of Float32Array, in the order of the classes.
// `margin` is what is added on each side of a box, as a share of its longer side: that of the training images.
export async function classify(ort, session, picture, boxes, side, margin) {
  if (!boxes.length) return [];
  const length = 3 * side * side;
  const crops = new Uint8Array(boxes.length * length);
  boxes.forEach((box, index) => {
    const square = Math.max(box.width, box.height) * (1 + 2 * margin);
    const left = box.x + box.width / 2 - square / 2;
    const top = box.y + box.height / 2 - square / 2;
    crops.set(sample(picture, left, top, square / side, side, side), index * length);
  });
  const faces = new ort.Tensor('uint8', crops, [boxes.length, side, side, 3]);
  const { probabilities } = await session.run({ faces });
  const count = probabilities.dims[1];
  return boxes.map((_, index) => probabilities.data.slice(index * count, (index + 1) * count));
}

// RGB pixels of a part of a picture, `step` px of it for each; the mean of a grid of samples, beyond the edge the edge.
function sample(picture, left, top, step, wide, high) {
  const grid = Math.max(1, Math.ceil(step));
  const pixels = new Uint8ClampedArray(3 * wide * high);
  for (let y = 0; y < high; y++) {
    for (let x = 0; x < wide; x++) {
      const sum = [0, 0, 0];
      for (let row = 0; row < grid; row++) {
        for (let column = 0; column < grid; column++) {
          const across = left + (x + (column + 0.5) / grid) * step - 0.5;
          const down = top + (y + (row + 0.5) / grid) * step - 0.5;
          addBilinear(picture, across, down, sum);
        }
      }
      for (let channel = 0; channel < 3; channel++) pixels[3 * (y * wide + x) + channel] = sum[channel] / grid ** 2;
    }
  }
  return pixels;
}

function addBilinear(picture, x, y, sum) {
  const [left, top] = [Math.floor(x), Math.floor(y)];
  for (const [row, down] of [[top, 1 - (y - top)], [top + 1, y - top]]) {
    for (const [column, across] of [[left, 1 - (x - left)], [left + 1, x - left]]) {
      const inside = Math.min(Math.max(row, 0), picture.height - 1) * picture.width
        + Math.min(Math.max(column, 0), picture.width - 1);
      for (let channel = 0; channel < 3; channel++) sum[channel] += down * across * picture.data[4 * inside + channel];
    }
  }
}

function clamp(value) {
  return Math.min(1, Math.max(0, value));
}

function overlap(one, other) {
  const width = Math.min(one.x + one.width, other.x + other.width) - Math.max(one.x, other.x);
  const height = Math.min(one.y + one.height, other.y + other.height) - Math.max(one.y, other.y);
  const shared = Math.max(0, width) * Math.max(0, height);
  return shared / (one.width * one.height + other.width * other.height - shared);
}
