// SPDX-License-Identifier: Apache-2.0
// The part of noVNC 1.7.0's documented interface that the console uses.
declare module '@novnc/novnc' {
  interface Options { shared?: boolean; credentials?: { username?: string; password?: string; target?: string } }
  export default class RFB extends EventTarget {
    constructor(target: HTMLElement, channel: string | WebSocket, options?: Options);
    viewOnly: boolean;
    scaleViewport: boolean;
    clipViewport: boolean;
    resizeSession: boolean;
    focusOnClick: boolean;
    showDotCursor: boolean;
    background: string;
    disconnect(): void;
    sendCtrlAltDel(): void;
    sendKey(keysym: number, code: string | null, down?: boolean): void;
    focus(options?: FocusOptions): void;
    blur(): void;
  }
}
