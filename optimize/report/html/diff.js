// What differs between two texts, by their longest common part.
const ROOM = 4e6; // cells of the table; beyond that all counts as changed

function diff(a, b) {
  let start = 0, end = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  const middle = changed(a.slice(start, a.length - end), b.slice(start, b.length - end));
  const same = (part) => part.map((item) => ['same', item]);
  return [...same(a.slice(0, start)), ...middle, ...same(end ? a.slice(-end) : [])];
}

function changed(a, b) {
  const wide = b.length + 1;
  if (!a.length || !b.length || (a.length + 1) * wide > ROOM) {
    return [...a.map((item) => ['del', item]), ...b.map((item) => ['ins', item])];
  }
  const long = new Uint16Array((a.length + 1) * wide); // of the common part of what follows
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      long[i * wide + j] = a[i] === b[j] ? long[(i + 1) * wide + j + 1] + 1
        : Math.max(long[(i + 1) * wide + j], long[i * wide + j + 1]);
    }
  }
  const out = [];
  let i = 0, j = 0;
  while (i < a.length && j < b.length) {
    if (a[i] === b[j]) { out.push(['same', a[i]]); i++; j++; }
    else if (long[(i + 1) * wide + j] >= long[i * wide + j + 1]) out.push(['del', a[i++]]);
    else out.push(['ins', b[j++]]);
  }
  return [...out, ...a.slice(i).map((item) => ['del', item]), ...b.slice(j).map((item) => ['ins', item])];
}

const words = (found) => found.match(/\p{L}+|\p{N}+|\s+|[^\p{L}\p{N}\s]/gu) || [];

// Two texts as nodes, what is only in the one or the other marked.
function marked(before, after) {
  const parts = diff(words(before), words(after));
  const side = (name) => parts.filter(([what]) => what === 'same' || what === name)
    .map(([what, item]) => (what === 'same' ? item : el(name, {}, item)));
  return [side('del'), side('ins')];
}

const FOLD = 3; // lines shown around a change

// Two prompts as one block of lines, long equal stretches left out.
function lineDiff(before, after) {
  const parts = diff(before.split('\n'), after.split('\n'));
  const near = parts.map(() => false);
  parts.forEach(([what], n) => {
    if (what !== 'same') for (let m = Math.max(0, n - FOLD); m <= n + FOLD && m < near.length; m++) near[m] = true;
  });
  const out = el('div', { class: 'diff' });
  for (let n = 0; n < parts.length; n++) {
    if (near[n]) {
      const [what, item] = parts[n];
      out.append(el(what === 'same' ? 'div' : what, { class: 'line' }, `${{ same: ' ', del: '−', ins: '+' }[what]} ${item}`));
      continue;
    }
    let more = n;
    while (more < parts.length && !near[more]) more++;
    out.append(el('div', { class: 'fold' }, `${more - n} ${more - n === 1 ? 'line' : 'lines'} the same`));
    n = more - 1;
  }
  return out;
}
