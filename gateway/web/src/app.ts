// SPDX-License-Identifier: Apache-2.0
// Every page works without this file; with it, some things are quicker.
import { askBeforeDanger } from './confirm.ts';
import { wireCopying } from './copy.ts';
import { shareCsrf } from './csrf.ts';
import { wireGrantForm } from './grants.ts';
import { wireMachines } from './machines.ts';
import { wireMenus } from './menus.ts';
import { wirePalette } from './palette.ts';
import { wirePasskeys } from './passkeys.ts';
import { takeToken } from './setup.ts';
import { startStepTimer } from './steptimer.ts';

document.documentElement.classList.add('js');
takeToken();
shareCsrf();
askBeforeDanger();
wireCopying();
wireMenus();
wireMachines();
wirePalette();
wirePasskeys();
wireGrantForm();
startStepTimer();
