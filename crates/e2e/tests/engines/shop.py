"""A program that puts tasks into a queue's table where it changes its own rows, by psycopg.

    shop.py URL TABLE COUNT

Some transactions are rolled back, some lose their connection before they commit, and some while they do, so that the
program does not hear whether they have. Its own table says afterwards which have. Prints what became of the transactions.
"""

import json
import os
import socket
import struct
import sys
import threading
import time

import psycopg

NAME = "shop"
THREADS = 4


def connect(url):
    return psycopg.connect(url, application_name=NAME)


def sell(connection, table, number):
    """Does what one transaction does, all but its end."""
    connection.execute("insert into shop_sold (number) values (%s)", [number])
    connection.execute(
        f"insert into {table} (payload, key) values (%s, %s)", [str(number).encode(), f"sold-{number}".encode()]
    )


def reset(pgconn):
    """Ends a connection so that the server may lose what it has not read yet."""
    with socket.socket(fileno=os.dup(pgconn.socket)) as end:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    pgconn.finish()


def run(url, table, numbers, told):
    connection = connect(url)
    for number in numbers:
        sell(connection, table, number)
        match number % 5:
            case 0:
                connection.rollback()
                told["rolled_back"].append(number)
            case 1:
                # Without a word, as when the program is killed.
                connection.pgconn.finish()
                told["cut"].append(number)
            case 2:
                connection.pgconn.send_query(b"commit")
                connection.pgconn.flush()
                reset(connection.pgconn)
                told["unheard"].append(number)
            case _:
                connection.commit()
                told["committed"].append(number)
        if connection.closed:
            connection = connect(url)
    connection.close()


def main():
    url, table, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with connect(url) as connection:
        connection.execute("create table shop_sold (number integer primary key)")
    told = {"committed": [], "rolled_back": [], "cut": [], "unheard": []}
    threads = [
        threading.Thread(target=run, args=(url, table, range(first, count, THREADS), told)) for first in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with connect(url) as connection:
        # Then no transaction of those whose end was not heard is open.
        others = "select count(*) from pg_stat_activity where application_name = %s and pid <> pg_backend_pid()"
        while connection.execute(others, [NAME]).fetchone()[0] > 0:
            connection.rollback()
            time.sleep(0.05)
        connection.rollback()
        told["sold"] = [row[0] for row in connection.execute("select number from shop_sold order by number")]
    print(json.dumps(told))


main()
