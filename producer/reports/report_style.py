"""How a report looks: one stylesheet, light and dark, from a phone's width up. No scripts, nothing from elsewhere."""

from typing import Final

STYLE: Final = """
:root { color-scheme: light dark; --paper: #fbfbfa; --ink: #1c1d1f; --faint: #5c6068; --well: #efefec; --line: #dcdcd8;
  --bar: #2f6fce; --done: #2e7d4f; --bad: #b3321f; --idle: #9aa0a8; }
@media (prefers-color-scheme: dark) { :root { --paper: #141517; --ink: #e6e7ea; --faint: #a0a4ad; --well: #1f2023;
  --line: #303237; --bar: #6fa5f5; --done: #5dbb84; --bad: #f08a7a; --idle: #6b7078; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem clamp(1rem, 3vw, 3rem) 4rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 .75rem; }
header p, .note { color: var(--faint); font-size: .875rem; margin: .35rem 0 0; overflow-wrap: anywhere; }
section { border-top: 1px solid var(--line); margin-top: 2rem; padding-top: 1.5rem; }
:focus-visible { outline: 3px solid var(--bar); outline-offset: 2px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .75rem; margin: 1.25rem 0 0; }
.tiles div { background: var(--well); border-radius: 8px; padding: .6rem .8rem; }
.tiles dt { color: var(--faint); font-size: .8125rem; }
.tiles dd { margin: 0; font-size: 1.25rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.tiles .bad dd { color: var(--bad); }
.share { display: flex; height: .6rem; margin-top: 1rem; border-radius: 4px; overflow: hidden;
  background: var(--well); }
.share span { display: block; }
.share .done { background: var(--done); } .share .failed { background: var(--bad); }
.share .canceled { background: var(--idle); }
.plot { position: relative; margin: .5rem 0 0 2.75rem; padding-bottom: 1.6rem; }
.plot svg { display: block; width: 100%; height: 13rem; overflow: visible; border-bottom: 1px solid var(--faint); }
.plot rect { fill: var(--bar); }
.plot line { stroke: var(--line); stroke-width: 1; vector-effect: non-scaling-stroke; }
.plot .rates { position: absolute; top: 0; left: -2.75rem; width: 2.4rem; height: 13rem; }
.plot .rates span { position: absolute; right: 0; transform: translateY(50%); }
.plot .times { position: relative; height: 1.6rem; }
.plot .times span { position: absolute; top: .3rem; transform: translateX(-50%); white-space: nowrap; }
.plot .rates span, .plot .times span { color: var(--faint); font-size: .75rem; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9375rem; }
caption { text-align: left; color: var(--faint); font-size: .875rem; padding-bottom: .4rem; }
th, td { text-align: left; vertical-align: top; padding: .4rem .9rem .4rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
thead th { color: var(--faint); font-size: .8125rem; font-weight: 500; white-space: nowrap; }
.num { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.long { min-width: 12rem; overflow-wrap: anywhere; }
details { margin-top: .35rem; }
summary { color: var(--faint); font-size: .875rem; cursor: pointer; }
pre { background: var(--well); border-radius: 6px; padding: .75rem; margin: .5rem 0 0; font-size: .8125rem;
  max-height: 24rem; overflow: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 9.5rem), 1fr)); gap: 1rem; }
figure { margin: 0; }
.sheet img, .sheet .none { display: block; width: 100%; height: auto; aspect-ratio: 1; object-fit: contain;
  border-radius: 6px; background: var(--well); }
.sheet .none { padding: .75rem; color: var(--bad); font-size: .8125rem; overflow: auto; overflow-wrap: anywhere; }
figcaption { font-size: .8125rem; line-height: 1.4; margin-top: .35rem; overflow-wrap: anywhere; }
figcaption .field { display: block; color: var(--faint); }
@media print { details { break-inside: avoid; } figure { break-inside: avoid; } }
"""
