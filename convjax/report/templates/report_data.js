// The numbers of the page: bytes in base64, decoded when a chart first needs them.

const data = JSON.parse(document.getElementById("data").textContent);
const TYPES = { f4: Float32Array, f8: Float64Array, i4: Int32Array };
const decoded = [];

function array(index) {
  const { type, data: text } = data.arrays[index];
  return (decoded[index] ??= new TYPES[type](bytes(text).buffer));
}

function bytes(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const letters = atob(text), found = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) found[i] = letters.charCodeAt(i);
  return found;
}

// Returns an array, or a row of a matrix, without a copy.
function values({ array: index, row }) {
  const all = array(index);
  if (row === undefined) return all;
  const width = data.arrays[index].shape[1];
  return all.subarray(row * width, (row + 1) * width);
}

function rows(reference) {
  const [count] = data.arrays[reference.array].shape;
  return Array.from({ length: count }, (_, row) => values({ ...reference, row }));
}
