// Row by row: filters, pages and keys. What is chosen stands in the address after #.
const PAGE = 25;
const KINDS = { all: 'All', broken: 'Broken', fixed: 'Fixed', wrong: 'Still wrong', right: 'Right', changed: 'Answer changed' };
const form = document.getElementById('controls');
const list = document.getElementById('list');
const state = { side: '', from: '', to: '', show: 'all', label: '', slice: '', q: '', page: 0, row: '' };

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const key of Object.keys(state)) if (given.has(key)) state[key] = given.get(key);
  state.page = Number(state.page) || 0;
  if (!(state.show in KINDS)) state.show = 'all';
}

function writeAddress() {
  const kept = Object.entries(state).filter(([key, value]) => value && !(key === 'show' && value === 'all'));
  // a frame without an address of its own refuses; the page works without
  try { history.replaceState(null, '', `#${new URLSearchParams(kept)}`); } catch { /* nothing to keep */ }
}

function options(name, found, chosen) {
  form.elements[name].replaceChildren(...found.map(([value, shown]) =>
    el('option', { value, selected: value === chosen }, shown)));
}

function controls() {
  const sides = Object.keys(data.tables), table = data.tables[state.side];
  const programs = Object.keys(table.programs);
  const both = data.compared.every((name) => programs.includes(name));
  const [from, to] = both ? data.compared : [programs[0], programs[programs.length - 1]];
  if (!programs.includes(state.from)) state.from = from;
  if (!programs.includes(state.to)) state.to = to;
  options('side', sides.map((side) => [side, `${side} (${data.tables[side].rows.length.toLocaleString('en')})`]), state.side);
  options('from', programs.map((name) => [name, name]), state.from);
  options('to', programs.map((name) => [name, name]), state.to);
  const golds = data.label ? [...new Set(table.gold[data.label])].map(text).sort() : [];
  if (!golds.includes(state.label)) state.label = '';
  options('label', [['', 'any'], ...golds.map((name) => [name, name])], state.label);
  document.getElementById('labels').hidden = !golds.length;
  const slices = Object.keys(table.slices).filter((name) => !data.label || !name.startsWith('label '));
  if (!(state.slice in table.slices)) state.slice = '';
  options('slice', [['', 'any'], ...slices.map((name) => [name, name])], state.slice);
  document.getElementById('slices').hidden = !slices.length;
  form.elements.q.value = state.q;
}

const fits = (found, show) => show === 'all' || (show === 'changed' ? found.changed : found.kind === show);

let cache = { key: '', found: [] };
function pairs() {
  const key = JSON.stringify([state.side, state.from, state.to]);
  if (cache.key !== key) cache = { key, found: compared(state.side, state.from, state.to) };
  return cache.found;
}

function haystack(found) {
  const { inputs, gold } = data.tables[state.side];
  found.hay = found.hay || [lines(inputs, found.n), lines(gold, found.n), found.before?.text, found.after?.text, found.row]
    .join('\n').toLowerCase();
  return found.hay;
}

function selected() {
  const table = data.tables[state.side], q = state.q.toLowerCase();
  const slice = state.slice ? new Set(table.slices[state.slice]) : null;
  return pairs().filter((found) => (!state.label || text(table.gold[data.label][found.n]) === state.label)
    && (!slice || slice.has(found.n)) && (!q || haystack(found).includes(q)));
}

// given: a row to turn to
function draw(given) {
  document.getElementById('rows').classList.toggle('single', single());
  const some = selected();
  document.getElementById('chips').replaceChildren(...Object.entries(KINDS).map(([show, name]) => el('button', {
    type: 'button', class: show, 'aria-pressed': String(state.show === show),
    onclick: () => choose({ show }),
  }, `${single() && show === 'wrong' ? 'Wrong' : name} `, el('b', {}, some.filter((found) => fits(found, show)).length.toLocaleString('en')))));
  const found = some.filter((one) => fits(one, state.show));
  const named = given ? found.findIndex((one) => one.row === given) : -1;
  if (named >= 0) state.page = Math.floor(named / PAGE);
  const last = Math.max(0, Math.ceil(found.length / PAGE) - 1);
  state.page = Math.min(state.page, last);
  list.replaceChildren(...found.slice(state.page * PAGE, (state.page + 1) * PAGE).map(row));
  const turn = (to, name) => el('button', { type: 'button', disabled: to < 0 || to > last, onclick: () => choose({ page: to }) }, name);
  document.getElementById('pages').replaceChildren(...(found.length ? [] : ['No such row.']), ...(last ? [
    turn(state.page - 1, '‹ previous'), ` page ${state.page + 1} of ${last + 1} `, turn(state.page + 1, 'next ›')] : []));
}

const SIGN = { fixed: '▲', broken: '▼', wrong: '✕', right: '✓', missing: '?' };
const single = () => state.from === state.to; // one program: nothing to compare
const SAID = { fixed: 'fixed', broken: 'broken', wrong: 'still wrong', right: 'right', missing: 'not scored' };

function row(found) {
  const table = data.tables[state.side], open = state.row === found.row;
  const short = (said) => (said ? said.text.slice(0, 200) || '(nothing)' : 'not asked');
  const item = el('li', { class: found.kind, 'data-row': found.row },
    el('button', { type: 'button', 'aria-expanded': String(open), onclick: () => toggle(item, found) },
      el('span', { class: 'sign', title: SAID[found.kind] }, SIGN[found.kind], el('span', { class: 'unseen' }, SAID[found.kind])),
      el('span', { class: 'input' }, lines(table.inputs, found.n).slice(0, 300)),
      el('span', { class: 'gold' }, lines(table.gold, found.n).slice(0, 200)),
      el('span', { class: 'before' }, short(found.before)),
      el('span', { class: 'after' }, short(found.after))));
  if (open) item.append(details(found));
  return item;
}

function toggle(item, found) {
  const open = item.lastElementChild.tagName !== 'DIV';
  item.firstElementChild.setAttribute('aria-expanded', String(open));
  if (open) item.append(details(found));
  else item.lastElementChild.remove();
  state.row = open ? found.row : '';
  writeAddress();
}

function details(found) {
  const table = data.tables[state.side];
  const [before, after] = marked(found.before?.text || '', found.after?.text || '');
  const part = (name, ...shown) => el('div', { class: 'part' }, el('h4', {}, name), ...shown);
  const said = (name, answered, shown) => {
    const told = part(name, el('pre', {}, shown.length ? shown : '(nothing)'),
      answered && el('p', { class: 'score' }, scored(answered)), answered?.feedback && el('p', { class: 'feedback' }, answered.feedback));
    if (answered) told.classList.add(tone(answered.score));
    return told;
  };
  return el('div', { class: 'open' },
    ...Object.entries(table.inputs).map(([name, column]) => part(name, el('pre', {}, text(column[found.n])))),
    el('div', { class: 'three' }, part('right answer', el('pre', {}, lines(table.gold, found.n))),
      !single() && said(`before: ${state.from}`, found.before, before),
      said(single() ? state.to : `after: ${state.to}`, found.after, after)),
    el('p', { class: 'hash' }, `row ${found.row}`));
}

// How good an answer is, whatever the other one was.
const tone = (score) => (score === null ? 'missing' : score >= 1 ? 'good' : score > 0 ? 'partly' : 'bad');

function scored(answered) {
  const score = answered.score === null ? 'no score: the call failed' : `score ${answered.score}`;
  return answered.confidence === null ? score : `${score}, confidence ${answered.confidence.toFixed(2)}`;
}

function choose(change) {
  Object.assign(state, { page: 0, row: '' }, change);
  controls();
  draw();
  writeAddress();
}

function step(by) {
  const buttons = [...list.querySelectorAll('li > button')];
  const next = buttons.indexOf(document.activeElement) + by;
  if (buttons[next]) { buttons[next].focus(); return; }
  const last = document.querySelector(by > 0 ? '#pages button:last-child' : '#pages button:first-child');
  if (!last || last.disabled || (by < 0 && next < -1)) return;
  last.click();
  const turned = list.querySelectorAll('li > button');
  turned[by > 0 ? 0 : turned.length - 1]?.focus();
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches('input, select, textarea')) {
    if (event.key === 'Escape') event.target.blur();
    return;
  }
  if (event.key === '/') { event.preventDefault(); form.elements.q.focus(); }
  else if (event.key === 'j') step(1);
  else if (event.key === 'k') step(-1);
}

function start() {
  if (!form) return;
  readAddress();
  if (!(state.side in data.tables)) [state.side] = Object.keys(data.tables);
  controls();
  draw(state.row);
  form.addEventListener('input', (event) => choose({ [event.target.name]: event.target.value }));
  form.addEventListener('submit', (event) => event.preventDefault());
  document.addEventListener('keydown', keys);
  addEventListener('hashchange', () => { readAddress(); controls(); draw(state.row); });
}
start();
