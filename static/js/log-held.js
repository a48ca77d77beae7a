// The part of an output that a page holds: pieces that lie one behind the other, and the lines they make.
//
// A piece is what the server answered: { offset, next, line, text }. Offsets are the server's, never counted from the text, in which
// bytes that are no UTF-8 have become another number of bytes. So nothing is asked for twice and nothing is left out.

export const PIECE = 64 * 1024; // bytes
const MOST = 8 * PIECE;

export class Held {
  constructor(piece) {
    this.pieces = [piece];
    this.begins = true; // with a whole line
    this.ends = piece.next >= piece.end; // where the output does, by what we know
    this.split = null;
  }

  get offset() {
    return this.pieces[0].offset;
  }

  get next() {
    return this.pieces.at(-1).next;
  }

  /** Number of the first line. */
  get first() {
    return this.read().first;
  }

  /** Number of the last line; one less than the first when there is none. */
  get last() {
    return this.first + this.lines.length - 1;
  }

  /** The raw lines; one that is held in part is among them only at the end of the output, or when it is all there is. */
  get lines() {
    return this.read().lines;
  }

  read() {
    if (this.split) return this.split;
    const lines = this.pieces.map((piece) => piece.text).join("").split("\n");
    let first = this.pieces[0].line;
    if (!this.begins && lines.length > 1) {
      lines.shift();
      first += 1;
    }
    if (!lines.at(-1) || (!this.ends && lines.length > 1)) lines.pop();
    this.split = { first, lines };
    return this.split;
  }

  get isFull() {
    return this.next - this.offset >= MOST;
  }

  has(line) {
    return this.first <= line && line <= this.last;
  }

  /** Take what lies behind. Small pieces become one, so that a live log does not come apart into thousands. */
  append({ offset, next, end, line, text }) {
    if (offset !== this.next) throw new Error(`The log is held up to byte ${this.next}; this piece begins at ${offset}.`);
    const tail = this.pieces.at(-1);
    if (next - tail.offset <= PIECE) Object.assign(tail, { next, text: tail.text + text });
    else this.pieces.push({ offset, next, line, text });
    this.ends = next >= end;
    this.split = null;
    while (this.isTooLong) this.begins = this.pieces.shift().text.endsWith("\n");
  }

  /** Take what lies before. */
  prepend({ offset, next, line, text }) {
    if (next !== this.offset) throw new Error(`The log is held from byte ${this.offset} on; this piece ends at ${next}.`);
    this.pieces.unshift({ offset, next, line, text });
    this.begins = true;
    this.split = null;
    while (this.isTooLong) {
      this.pieces.pop();
      this.ends = false;
    }
  }

  get isTooLong() {
    return this.pieces.length > 1 && this.next - this.offset > MOST;
  }

  /** No longer take what is printed. */
  leaveEnd() {
    this.ends = false;
    this.split = null;
  }
}
