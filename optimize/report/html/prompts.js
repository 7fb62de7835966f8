// Each lever's prompt against the rung before and the baseline, with the rows it fixed and broke.
const FEW = 5; // rows named

function changesOf(from, to) {
  const known = data.tables.val;
  if (!known || !known.programs[from] || !known.programs[to] || from === to) return null;
  const found = compared('val', from, to);
  const of = (name) => found.filter((one) => one.kind === name);
  return { fixed: of('fixed'), broken: of('broken'), scored: found.filter((one) => one.kind !== 'missing').length };
}

function summed(found) {
  if (!found) return '';
  return `fixed ${found.fixed.length}, broke ${found.broken.length} of ${found.scored} val rows`;
}

function rowLines(found, from, to) {
  return ['broken', 'fixed'].filter((name) => found[name].length).map((name) => el('div', { class: `moved ${name}` },
    el('h4', {}, `${{ broken: 'Broke', fixed: 'Fixed' }[name]} ${found[name].length} `, el('button', {
      type: 'button',
      onclick: () => {
        choose({ side: 'val', from, to, show: name, label: '', slice: '', q: '' });
        document.getElementById('rows').scrollIntoView();
      },
    }, 'show row by row')),
    el('ul', {}, ...found[name].slice(0, FEW).map((one) => el('li', {},
      el('span', { class: 'input' }, lines(data.tables.val.inputs, one.n).slice(0, 160)), ' ',
      el('del', {}, one.before.text.slice(0, 80) || '(nothing)'), ' → ',
      el('ins', {}, one.after.text.slice(0, 80) || '(nothing)'))))));
}

function against(from, to) {
  if (!(from in data.prompts)) return el('pre', {}, data.prompts[to]);
  const same = data.prompts[from] === data.prompts[to];
  return same ? el('p', {}, `The same prompt as ${from}'s, for this row.`) : lineDiff(data.prompts[from], data.prompts[to]);
}

function filled(box, step) {
  const first = data.steps[0].rung, views = el('div', { class: 'views', role: 'group' });
  const shown = el('div');
  const show = (button, from) => {
    views.querySelectorAll('button').forEach((one) => one.setAttribute('aria-pressed', String(one === button)));
    const moved = from && changesOf(from, step.rung);
    shown.replaceChildren(...(moved ? rowLines(moved, from, step.rung) : []),
      from ? against(from, step.rung) : el('pre', {}, data.prompts[step.rung]));
  };
  const view = (name, from) => {
    const button = el('button', { type: 'button', onclick: () => show(button, from) }, name);
    views.append(button);
    return button;
  };
  const whole = () => view('whole prompt', '');
  if (step.rung === first) {
    box.append(el('pre', {}, data.prompts[first]));
    return;
  }
  const before = view(`against ${step.before}`, step.before);
  if (step.before !== first) view(`against ${first}`, first);
  whole();
  box.append(views, shown);
  show(before, step.before);
}

function prompts() {
  const place = document.getElementById('steps');
  if (!place) return;
  const shown = data.kept in data.prompts ? data.kept : data.compared[0];
  data.steps.forEach((step, n) => {
    if (!(step.rung in data.prompts)) return;
    const moved = changesOf(step.before, step.rung), box = el('div');
    const kept = step.rung === data.kept ? ' · kept at the end' : '';
    const summary = el('summary', {}, el('b', {}, `${n} ${step.rung}${n && step.promoted ? ' ▲' : ''}`), ` ${summed(moved)}${kept}`);
    const details = el('details', {
      ontoggle: () => { if (details.open && !box.hasChildNodes()) filled(box, step); },
    }, summary, box);
    place.append(details);
    details.open = step.rung === shown && n > 0;
  });
}
prompts();
