// A table that sorts by its columns and whose rows can be chosen by pointer and keys. At most some hundred rows: longer lists
// are virtual.

import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";

export interface Column<T> {
    key: string;
    head: ComponentChildren;
    /** What it sorts by; columns without are not sorted by. */
    by?: (row: T) => number | string;
    cell: (row: T) => ComponentChildren;
    kind?: "num" | "text" | "mono";
    title?: (row: T) => string;
}

interface Props<T> {
    label: string;
    columns: readonly Column<T>[];
    rows: readonly T[];
    id: (row: T) => string;
    chosen?: string | null;
    choose?: (row: T) => void;
    /** Kept at this many rows; the rest is counted below. */
    most?: number;
}

interface Order {
    key: string;
    down: boolean;
}

export function Table<T>({ label, columns, rows, id, chosen, choose, most = 200 }: Props<T>) {
    const order = useSignal<Order | null>(null);
    const sorted = order.value ? inOrder(rows, columns, order.value) : rows;
    const press = (column: Column<T>) => {
        const now = order.value;
        if (now?.key !== column.key) order.value = { key: column.key, down: true };
        else order.value = now.down ? { key: column.key, down: false } : null;
    };
    return (
        <div class="table-box" role="region" aria-label={label} tabIndex={0}>
            <table class="list" aria-label={label}>
                <thead>
                    <tr>
                        {columns.map((column) => {
                            const now = order.value?.key === column.key ? (order.value.down ? "descending" : "ascending") : "none";
                            return (
                                <th key={column.key} scope="col" class={column.kind} aria-sort={column.by ? now : undefined}>
                                    {column.head}
                                    {column.by && <button type="button" class={`sort ${now}`} aria-label={`Sort by ${column.key}`} onClick={() => press(column)}>{now === "ascending" ? "▲" : "▼"}</button>}
                                </th>
                            );
                        })}
                    </tr>
                </thead>
                <tbody>
                    {sorted.slice(0, most).map((row) => (
                        <Row key={id(row)} row={row} columns={columns} chosen={chosen === id(row)} choose={choose} />
                    ))}
                </tbody>
            </table>
            {rows.length > most && <p class="fineprint muted">{rows.length - most} more are not shown.</p>}
        </div>
    );
}

function Row<T>({ row, columns, chosen, choose }: { row: T; columns: readonly Column<T>[]; chosen: boolean; choose: ((row: T) => void) | undefined }) {
    const key = (event: KeyboardEvent) => {
        const on = event.currentTarget as HTMLElement;
        if (event.key === "Enter" || event.key === " ") choose?.(row);
        else if (event.key === "ArrowDown") (on.nextElementSibling as HTMLElement | null)?.focus();
        else if (event.key === "ArrowUp") (on.previousElementSibling as HTMLElement | null)?.focus();
        else return;
        event.preventDefault();
        event.stopPropagation();
    };
    const live = choose ? { tabIndex: 0, onClick: () => choose(row), onKeyDown: key, "aria-selected": chosen } : {};
    return (
        <tr class={chosen ? "chosen" : choose ? "can" : ""} {...live}>
            {columns.map((column) => <td key={column.key} class={column.kind} title={column.title?.(row)}>{column.cell(row)}</td>)}
        </tr>
    );
}

/** Rows by one column; equal ones stay as they came. */
export function inOrder<T>(rows: readonly T[], columns: readonly Column<T>[], order: Order): T[] {
    const by = columns.find((column) => column.key === order.key)?.by;
    if (!by) return [...rows];
    const sign = order.down ? -1 : 1;
    return [...rows].sort((left, right) => {
        const [a, b] = [by(left), by(right)];
        return a < b ? -sign : a > b ? sign : 0;
    });
}
