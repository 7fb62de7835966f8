'use strict';
// What the page knows of its rows. Texts are never markup: nodes are made, HTML is not written.
const data = JSON.parse(document.getElementById('data-json').textContent);
const text = (n) => data.texts[n];

function el(name, given, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(given || {})) {
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== false) node.setAttribute(key, value === true ? '' : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

const lines = (fields, n) => {
  const names = Object.keys(fields);
  if (names.length === 1) return text(fields[names[0]][n]);
  return names.map((name) => `${name}: ${text(fields[name][n])}`).join('\n');
};

// A program's answer to a row; null where it was not asked.
function answer(side, program, n) {
  const found = data.tables[side].programs[program];
  if (!found || n >= found.scores.length) return null;
  return {
    text: lines(found.fields, n), score: found.scores[n], feedback: text(found.feedback[n]),
    confidence: found.confidence[n],
  };
}

const ORDER = ['broken', 'fixed', 'wrong', 'right', 'missing'];

function kind(before, after) {
  if (!before || !after || before.score === null || after.score === null) return 'missing';
  if (after.score > before.score) return 'fixed';
  if (after.score < before.score) return 'broken';
  return after.score < 1 ? 'wrong' : 'right';
}

// Every row of a side with both answers, those that got worse first.
function compared(side, from, to) {
  const found = data.tables[side].rows.map((row, n) => {
    const before = answer(side, from, n), after = answer(side, to, n);
    return {
      n, row, before, after, kind: kind(before, after),
      changed: Boolean(before && after && before.text !== after.text),
    };
  });
  return found.sort((a, b) => ORDER.indexOf(a.kind) - ORDER.indexOf(b.kind) || a.n - b.n);
}
