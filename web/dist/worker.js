/*! memfrag, MIT OR Apache-2.0. Contains Preact, Preact Signals and uPlot, MIT: see web/THIRD-PARTY.md */
"use strict";(()=>{})();
