"""The starter's language: customer messages to a small web shop, and the shop's replies.

Everything here was written for this project; no text comes from elsewhere. A template may hold ``[a|b|c]`` (one of
the alternatives) and ``{slot}`` (a value drawn once per message). Each issue has seven phrasings: the first four are
for the task's training split, the fifth for validation, the last two for test. The base model reads all of them, in
other messages.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

#: The teams, which are the task's answers. None of these words occurs in a message or in a reply.
TEAMS = ("billing", "delivery", "returns", "technical", "account", "feedback")

#: Which of an issue's phrasings each split may use.
SPLIT_PHRASINGS = {"train": range(4), "validation": range(4, 5), "test": range(5, 7)}

MOODS = ("calm", "angry", "worried", "happy")


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


NAMES = _words(
    "Ana, Ben, Clara, David, Elena, Felix, Greta, Hugo, Ines, Jonas, Karin, Leo, Mara, Nils, Olga, Paul, Rosa, Samir, "
    "Tessa, Viktor, Wanda, Yusuf, Zoe, Amir, Bea, Carlos, Dora, Emil, Fatima, Georg, Hana, Ivan"
)
CITIES = _words("Bern, Porto, Lyon, Graz, Oslo, Turin, Ghent, Leeds, Cork, Basel, Malmo, Krakow")
DAYS = _words("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday")
COLOURS = _words("blue, green, red, black, white, grey, yellow, brown")
RELATIVES = _words("sister, brother, mother, father, daughter, son, neighbour, friend, aunt, uncle")
DEVICES = _words(
    "lamp, kettle, radio, speaker, camera, printer, tablet, toaster, headset, keyboard, heater, coffee machine, "
    "alarm clock, vacuum cleaner, smart watch, projector"
)
GOODS = _words(
    "rug, jacket, sofa, blanket, backpack, mirror, chair, desk, tent, raincoat, teapot, bookshelf, pillow, suitcase, "
    "sweater, bicycle helmet"
)


@dataclass(frozen=True)
class Issue:
    """One reason to write: what it comes down to, how customers say it, and how the shop answers."""

    team: str
    summary: str
    topics: tuple[str, ...]
    phrasings: tuple[str, ...]
    replies: tuple[str, ...]


@dataclass(frozen=True)
class Message:
    """A customer message with all that was drawn for it."""

    text: str
    issue: Issue
    phrasing: int
    slots: dict[str, str]
    mood: str
    signed: bool


ISSUES = (
    # ---------------------------------------------------------------- billing
    Issue(
        "billing",
        "charged twice for the {item}",
        _words("payments, charges"),
        (
            "I was charged twice for the {item}.",
            "My card shows two payments of {amount} for one {item}.",
            "You took {amount} from my bank [two times|twice], but I bought only one {item}.",
            "The money for the {item} has left my bank twice.",
            "There are two identical charges of {amount} on my card, both for the {item}.",
            "Why did I pay for the {item} two times?",
            "I see the same {amount} for the {item} twice on my bank statement.",
        ),
        (
            "I can see the second charge of {amount} and have cancelled it.",
            "The double payment for the {item} was our mistake. The money will be back on your card by {day2}.",
        ),
    ),
    Issue(
        "billing",
        "price of the {item} too high",
        _words("prices, money"),
        (
            "The invoice for the {item} [shows|says] {amount}, which is more than the price on your page.",
            "The total on my invoice is wrong, the {item} was cheaper.",
            "Your invoice asks for {amount}, but the {item} should cost much less.",
            "I think you got the price of the {item} wrong on the invoice.",
            "The sum on the bill does not match the price I saw for the {item}.",
            "On the bill the {item} costs {amount}, and that is not what we agreed.",
            "Please check my bill, the amount for the {item} is too high.",
        ),
        (
            "You are right, the price was wrong. A corrected invoice is on its way to your inbox.",
            "I have checked the sum and lowered it. You will get a new invoice for the {item} today.",
        ),
    ),
    Issue(
        "billing",
        "discount missing for the {item}",
        _words("discounts, vouchers"),
        (
            "My discount code [did not work|was not accepted] when I paid for the {item}.",
            "The voucher was not taken off the price of the {item}.",
            "I had a voucher, but I still paid the full {amount} for the {item}.",
            "The discount of ten percent is missing from my payment.",
            "I typed the discount code for the {item} and the price stayed at {amount}.",
            "You promised me a lower price with the voucher, but I paid {amount}.",
            "Why was the discount for the {item} not counted?",
        ),
        (
            "The discount should have counted. I have sent the difference to your card.",
            "The voucher is valid, so we pay the difference for the {item} back to you.",
        ),
    ),
    Issue(
        "billing",
        "invoice for the {item} needed",
        _words("invoices, receipts"),
        (
            "Please send me [a copy of the invoice|the invoice again] for the {item}.",
            "I need an invoice with the tax on it for the {item}.",
            "I never got an invoice for the {amount} that I paid.",
            "Can I have the receipt for the {item} on paper?",
            "My office needs a receipt for the {item}.",
            "Where can I find the bill for the {item}?",
            "For my taxes I need proof that I paid {amount} for the {item}.",
        ),
        (
            "I have sent the invoice for the {item} to your inbox.",
            "The receipt over {amount} is attached, with the tax shown.",
        ),
    ),
    Issue(
        "billing",
        "refund for the {item} not received",
        _words("refunds, money"),
        (
            "The refund of {amount} has still not reached my bank.",
            "You said I would get my money for the {item} back, but I still wait for the refund.",
            "I am still waiting for the {amount} that you owe me for the {item}.",
            "My refund for the {item} was promised for {day}, but my bank has nothing.",
            "When will the refund for the {item} be paid?",
            "No money has come back to my card for the {item}.",
            "It has been weeks and the {amount} for the {item} is not back in my bank.",
        ),
        (
            "The refund of {amount} left us on {day2}. Your bank needs two more days.",
            "I have asked our bank to pay the {amount} today.",
        ),
    ),
    # --------------------------------------------------------------- delivery
    Issue(
        "delivery",
        "parcel with the {item} is late",
        _words("delays, parcels"),
        (
            "The parcel with the {item} [is late|has not arrived].",
            "I ordered the {item} last week and nothing has come.",
            "The {item} should have been here on {day}, but there is no parcel.",
            "I am still waiting for the parcel with my {item}.",
            "My {item} was due on {day} and it is not here yet.",
            "Nobody has brought me the {item} that I ordered.",
            "How long must I wait until the {item} gets here?",
        ),
        (
            "The parcel was held up on the road. It will reach you on {day2}.",
            "The courier is late this week. Please expect the {item} on {day2}.",
        ),
    ),
    Issue(
        "delivery",
        "tracking of the {item} stopped",
        _words("tracking, shipments"),
        (
            "The tracking of my parcel has not [changed|moved] since {day}.",
            "The tracking number for the {item} does not show anything.",
            "The tracking page says that the parcel is in {city}, but I live far away.",
            "Where is my parcel with the {item} right now?",
            "I cannot follow the parcel, the tracking stopped in {city}.",
            "Since {day} the shipment seems to be stuck in {city}.",
            "Can you find out where the shipment with the {item} is?",
        ),
        (
            "The parcel is in {city} and moves on tonight. It should be with you on {day2}.",
            "I have asked the courier, and the van with your {item} comes on {day2}.",
        ),
    ),
    Issue(
        "delivery",
        "courier left the {item} in the wrong place",
        _words("couriers, drivers"),
        (
            "The courier left the {item} [in the rain|at the wrong door].",
            "The driver gave my parcel to a neighbour that I do not know.",
            "The tracking says the {item} was handed over, but I have no parcel.",
            "The courier put the parcel with the {item} in front of another house.",
            "Your driver left the parcel on the street.",
            "Someone else got my {item}, because the driver went to the wrong street.",
            "The van stopped at the wrong house and my {item} is now with strangers.",
        ),
        (
            "The driver will fetch the parcel and bring it to your door on {day2}.",
            "That should not happen. The courier will look for the {item} and ring at your door.",
        ),
    ),
    Issue(
        "delivery",
        "address for the {item} has changed",
        _words("addresses, vans"),
        (
            "Please send the parcel to [my office|my new address] in {city}.",
            "Can the courier bring the {item} to another address?",
            "I will not be home on {day}, please bring the parcel to my neighbour.",
            "I moved to {city}, so the parcel must go there.",
            "The {item} is on its way to my old address in {city}.",
            "Could the driver take the {item} to a shop near me in {city}?",
            "Nobody is at home on {day}, can the van come on another day?",
        ),
        (
            "The courier has the new address and comes on {day2}.",
            "I have told the driver, so the parcel will be brought to the right place on {day2}.",
        ),
    ),
    Issue(
        "delivery",
        "arrival of the {item}",
        _words("shipments, dates"),
        (
            "On which day will the {item} [arrive|be here]?",
            "Can you ship the {item} to {city} before {day}?",
            "How many days does the parcel to {city} need?",
            "I need the {item} before {day}, can the courier do that?",
            "Will the parcel be here by {day}?",
            "Is it possible to get the {item} to {city} faster?",
            "At what time does the van come to {city} on {day}?",
        ),
        (
            "The parcel leaves our store tonight and arrives on {day2}.",
            "The courier needs two days, so the {item} will arrive on {day2}.",
        ),
    ),
    # ---------------------------------------------------------------- returns
    Issue(
        "returns",
        "size of the {item} does not fit",
        _words("sizes, sending back"),
        (
            "The {item} is too [small|big] and I want to send it back.",
            "I would like to give the {item} back, it does not fit in my room.",
            "The {item} does not fit, how can I send it back?",
            "The size of the {item} is wrong for me, please take it back.",
            "The {item} is larger than I thought and I do not want to keep it.",
            "I tried the {item} and it is the wrong size, so you can have it again.",
            "There is no room for the {item} here, will you take it back?",
        ),
        (
            "You can send the {item} back for free. The label is in your inbox.",
            "Please put the {item} in its box. We take it back within thirty days.",
        ),
    ),
    Issue(
        "returns",
        "swap of the {item} for another colour",
        _words("swaps, colours"),
        (
            "Can I swap the {item} for a {colour} one?",
            "I would like to exchange the {item} for [another colour|a {colour} one].",
            "The {item} looks different at home, I would rather have it in {colour}.",
            "Please exchange my {item}, I want the {colour} one.",
            "I chose the wrong colour and want to trade the {item} for a {colour} one.",
            "Is it possible to change the {item} for a {colour} one after I opened the box?",
            "The {colour} one suits my home better, may I swap?",
        ),
        (
            "Of course you can swap it. Send us the {item} and we post the {colour} one.",
            "The exchange is free. As soon as the {item} is back, the {colour} one leaves our store.",
        ),
    ),
    Issue(
        "returns",
        "damage to the {item}",
        _words("damage, broken articles"),
        (
            "The {item} came [broken|with a crack] and I want to send it back.",
            "There is a deep scratch on the {item}, so I do not want it.",
            "When I opened the box, the {item} was broken. Please take it back.",
            "The {item} has a hole in it and I would like a new one.",
            "One leg of the {item} is bent, can you replace it?",
            "I found a crack in the {item} and I would like to exchange it.",
            "The {item} was in pieces when I opened the box, I will not keep it.",
        ),
        (
            "Please send the broken {item} back with the free label, and we post a new one.",
            "We replace the {item} at once. Keep the box, so that you can send the old one back.",
        ),
    ),
    Issue(
        "returns",
        "sending back the {item}, no longer wanted",
        _words("sending back, second thoughts"),
        (
            "I [changed my mind|have second thoughts] and want to send the {item} back.",
            "I do not need the {item} any more, can you take it back?",
            "My {relative} already has a {item}, so I would like to give this one back.",
            "I want to send the {item} back, the box is still closed.",
            "I do not like the {item} and would rather not keep it.",
            "I got a {item} as a present, so yours can go back.",
            "May I bring the {item} back, although I have used it once?",
        ),
        (
            "That is no problem. You can send the {item} back within thirty days.",
            "Please use the free label and send the {item} to our store in {city}.",
        ),
    ),
    Issue(
        "returns",
        "mix-up, no {item} in the box",
        _words("mix-ups, swaps"),
        (
            "I ordered a {item} and got a {other} instead. [How do I send it back?|Please swap it.]",
            "There was a {other} in the box, and not my {item}. Please exchange it.",
            "You sent me the wrong {item}, and I want to send it back.",
            "This is not the {item} that I ordered, please take it back.",
            "In the box I found a {other}. Where can I send it?",
            "I asked for a {colour} {item} and this one has another colour, please replace it.",
            "The {other} is not mine, how can I give it back and get the {item}?",
        ),
        (
            "We mixed up two boxes. Send the wrong one back for free and we post the {item}.",
            "The label for the wrong article is in your inbox, and the {item} will be swapped.",
        ),
    ),
    # -------------------------------------------------------------- technical
    Issue(
        "technical",
        "power missing in the {device}",
        _words("power, cables"),
        (
            "The {device} does not [switch on|start].",
            "When I press the button, the {device} stays dark.",
            "My {device} has stopped working and the light is off.",
            "I plugged in the {device}, but nothing happens.",
            "The {device} will not turn on, whatever I press.",
            "The {device} is dead, although the cable is in.",
            "There is no sign of power in the {device}.",
        ),
        (
            "Please unplug the {device}, wait one minute and press the button for ten seconds.",
            "Try another cable first. If the {device} stays dark, press the small reset button.",
        ),
    ),
    Issue(
        "technical",
        "network not found by the {device}",
        _words("networks, connections"),
        (
            "The {device} does not [connect to|find] my phone.",
            "The {device} loses the wireless network every [hour|evening].",
            "I cannot pair the {device} with my phone.",
            "My {device} says that there is no network.",
            "The connection between the {device} and my laptop keeps breaking.",
            "How do I get the {device} onto my wireless network?",
            "My laptop does not see the {device}.",
        ),
        (
            "Please restart the {device}, open the settings and choose your network again.",
            "Hold the button of the {device} until the light blinks, and then pair it again.",
        ),
    ),
    Issue(
        "technical",
        "noise or heat from the {device}",
        _words("noises, heat"),
        (
            "The {device} makes a [loud noise|strange sound] when it runs.",
            "The {device} gets very hot after a few minutes.",
            "I hear a click in the {device} and then it stops.",
            "My {device} smells of smoke when I use it.",
            "After an hour the {device} becomes so hot that it stops.",
            "The {device} hums all the time while it runs.",
            "Something rattles inside the {device} when I start it.",
        ),
        (
            "Please switch the {device} off and clean the filter. That stops most noises.",
            "Turn the {device} off at once, let it cool down, and start it with the lowest setting.",
        ),
    ),
    Issue(
        "technical",
        "battery or screen of the {device} fails",
        _words("batteries, screens"),
        (
            "The battery of the {device} is empty after [an hour|ten minutes].",
            "The screen of the {device} flickers.",
            "The {device} does not charge any more.",
            "I see only lines on the screen of my {device}.",
            "The {device} shows a low battery all day, even with the cable in.",
            "The display of the {device} freezes.",
            "The {device} only runs for a few minutes before it needs the charger again.",
        ),
        (
            "Please charge the {device} for four hours with its own cable and restart it.",
            "Open the settings of the {device}, lower the light of the screen and restart it.",
        ),
    ),
    Issue(
        "technical",
        "setting up the {device}",
        _words("manuals, errors"),
        (
            "How do I [reset|set up] the {device}?",
            "I do not understand the manual of the {device}.",
            "Since the update the {device} shows an error.",
            "The app for the {device} crashes when I open it.",
            "Which button on the {device} changes the language?",
            "The new software of the {device} does not install.",
            "The {device} shows error {digit} and I do not know what it means.",
        ),
        (
            "Please install the latest update and restart the {device}. The error will be gone.",
            "Press the button on the back for ten seconds. The {device} starts afresh and the app shows each step.",
        ),
    ),
    # ---------------------------------------------------------------- account
    Issue(
        "account",
        "password forgotten",
        _words("passwords, logins"),
        (
            "I forgot my password and cannot [log in|sign in].",
            "Your page does not accept my password.",
            "Please send me a new password.",
            "The link to change my password does not open.",
            "I cannot remember the password for your shop.",
            "What can I do when I have lost my password?",
            "Each time I type my password, your page says that it is wrong.",
        ),
        (
            "I have sent you a link. Click on it and choose a new password.",
            "Please open the login page, click on the small key and choose a new password.",
        ),
    ),
    Issue(
        "account",
        "login is locked",
        _words("logins, user names"),
        (
            "My login [is locked|was blocked] since {day}.",
            "Your shop has locked me out after three tries.",
            "When I want to log in, the page says that I am blocked.",
            "I cannot get into my profile, it is locked.",
            "Please unlock my login.",
            "Since {day} I am locked out of your shop.",
            "Why is my user name blocked?",
        ),
        (
            "Your login is open again. Please choose a new password the next time.",
            "I have unlocked your profile. You can sign in again in ten minutes.",
        ),
    ),
    Issue(
        "account",
        "profile with a new e-mail or name",
        _words("profiles, user names"),
        (
            "I have a new [e-mail|phone number], please change it in my profile.",
            "Please change my name to {name2} in my profile.",
            "How do I change the e-mail in my profile?",
            "My user name is spelled wrong in your shop.",
            "I got married, so my profile needs the new name.",
            "My old e-mail is gone, how can I sign in with the new one?",
            "The phone number in my settings is not mine any more.",
        ),
        (
            "I have changed it. Please sign in once more and check your profile.",
            "Your profile shows the new entry now. You can change it in the settings at any time.",
        ),
    ),
    Issue(
        "account",
        "member wants to leave",
        _words("profiles, members"),
        (
            "Please [delete|close] my profile.",
            "I want you to delete all that you know about me.",
            "How can I remove my profile from your shop?",
            "I have two profiles and would like to delete one.",
            "I do not want to be a member of your shop any more.",
            "Please erase my name and my e-mail from your shop.",
            "Where can I end my membership?",
        ),
        (
            "I have deleted your profile. You will get one last e-mail from us.",
            "Sign in, open the settings and click on delete. All that we stored about you will be gone.",
        ),
    ),
    Issue(
        "account",
        "code or newsletter from the login page",
        _words("codes, newsletters"),
        (
            "The code for the login never [arrives|reaches my phone].",
            "I get no e-mail with the code when I sign in.",
            "Your shop asks me for a code that I do not have.",
            "Please stop the newsletter, I do not want these e-mails.",
            "The login code does not come to my phone.",
            "Each week I get your newsletter, although I signed out of it.",
            "Someone else tried to sign in with my e-mail, and I got a strange code.",
        ),
        (
            "I have sent you a new code. Please type it on the login page within ten minutes.",
            "I have changed the settings of your profile, so that you only get the e-mails you want.",
        ),
    ),
    # --------------------------------------------------------------- feedback
    Issue(
        "feedback",
        "likes the {item}",
        _words("praise, stars"),
        (
            "I [love|really like] the {item}, it is just what I wanted.",
            "The {item} is wonderful, and my {relative} wants one too.",
            "I just want to say that the {item} is great.",
            "The {item} is even nicer than in the picture.",
            "Five stars for the {item}!",
            "I am so pleased with my {item}.",
            "My {relative} and I use the {item} every day and enjoy it.",
        ),
        (
            "How kind of you to tell us! We are glad that you enjoy the {item}.",
            "Thank you for the nice words. Our makers in {city} will be proud of the {item}.",
        ),
    ),
    Issue(
        "feedback",
        "thanks to the staff",
        _words("thanks, kind words"),
        (
            "Your colleague {name2} was very [kind|helpful] on the phone.",
            "I want to thank {name2} for the good advice.",
            "Please tell {name2} that I am grateful for the help.",
            "{name2} in your store in {city} did a great job.",
            "I was served so well by {name2}, please pass on my thanks.",
            "{name2} took a lot of time for me and was so friendly.",
            "I have never met nicer people than in your store in {city}.",
        ),
        (
            "Thank you, I will pass your kind words on. {name2} will smile all day.",
            "How nice to hear! Our people in {city} love what they do.",
        ),
    ),
    Issue(
        "feedback",
        "idea for the shop",
        _words("ideas, wishes"),
        (
            "I have an idea: [you could|why not] sell the {item} in {colour} too.",
            "It would be nice if your shop had more {colour} things.",
            "My wish for next year is a bigger choice in your shop.",
            "Maybe you could open a store in {city}.",
            "I suggest that you offer the {item} in {colour} as well.",
            "Have you ever thought of a store in {city}?",
            "A small tip from me: show larger pictures on your page.",
        ),
        (
            "That is a good idea. I have written it on our list of wishes.",
            "Thank you for the idea. We talk about all wishes once a month.",
        ),
    ),
    Issue(
        "feedback",
        "praise for the shop",
        _words("praise, kind words"),
        (
            "I have bought from you for years and was [always|never less than] happy.",
            "Yours is the best shop that I know.",
            "All went well and I will come back soon.",
            "I tell all my friends about your shop.",
            "Keep up the good work, everything was perfect.",
            "Buying from you is a joy.",
            "Your shop is my favourite by far.",
        ),
        (
            "Thank you for being with us for so long. We are glad that you like our shop.",
            "That makes our day! We look forward to your next visit.",
        ),
    ),
    Issue(
        "feedback",
        "opinion on the packaging or the page",
        _words("opinions, tips"),
        (
            "I like that you use so little [plastic|paper] in your boxes.",
            "The new design of your page is [lovely|a bit too dark].",
            "Your boxes are pretty, I use them again.",
            "The music in your store in {city} is a bit too loud.",
            "I find the letters on your page too small to read.",
            "The little card in the box made me smile.",
            "Less plastic in the boxes would be a fine thing.",
        ),
        (
            "Thank you for your opinion. I will show it to those who plan the shop.",
            "We like to hear what you think, and I have passed your opinion on.",
        ),
    ),
)

# Sentences around the issue. They are shared by all splits, as small talk is.
OPENINGS = {
    "calm": ("Hello.", "Hi.", "Good morning.", "Good evening.", "Dear shop,", "Hello, I have a short question.", ""),
    "angry": ("I am really angry.", "This is too much!", "Again there is trouble.", "I am tired of this.", "Listen."),
    "worried": ("Please help me.", "I am a bit worried.", "I do not know what to do.", "I need your help.", "Oh dear."),
    "happy": (
        "Hello dear people!",
        "What a nice day!",
        "Hi there!",
        "Greetings from {city}!",
        "A happy week to you all!",
    ),
}
CLOSINGS = {
    "calm": ("Thank you.", "Many thanks.", "Best wishes, {name}", "Regards, {name}", "{name}", "Yours, {name}", ""),
    "angry": (
        "I expect an answer today.",
        "Do something!",
        "{name}",
        "So much for good service. {name}",
        "Regards, {name}",
    ),
    "worried": ("Please answer soon.", "I hope you can help. {name}", "Thanks for any help. {name}", "{name}"),
    "happy": ("Have a nice week!", "All the best, {name}", "Warm wishes, {name}", "See you soon! {name}", "{name}"),
}
CONTEXTS = (
    "I bought the {item} for my {relative}.",
    "My order has the number {number}.",
    "I ordered the {item} on {day}.",
    "The {item} was a gift for {name2}.",
    "I am a customer from {city}.",
    "My {relative} told me about your shop.",
    "I read your page on {day}.",
    "I also looked at the {other}.",
    "We live in {city}.",
    "The {item} is {colour}.",
    "I wrote to you on {day} already.",
    "It is the second {item} in our house.",
)
#: A sentence that sounds like a team's business although it is not why the customer writes.
DISTRACTORS = {
    "billing": (
        "I paid {amount} by card and that went well.",
        "The invoice was correct.",
        "The price was fair.",
        "The {item} cost {amount}, and I have paid.",
    ),
    "delivery": (
        "The parcel came on time.",
        "The courier was quick.",
        "The tracking was exact to the hour.",
        "The driver rang at my door on {day}.",
    ),
    "returns": (
        "I do not want to send anything back.",
        "I once swapped a {other}, but this is about something else.",
        "I am going to keep the {other}.",
        "The size was right.",
    ),
    "technical": (
        "The {device} works well.",
        "The battery of my {device} is strong.",
        "It was easy to set up the {device}.",
        "The screen of my {device} is sharp.",
    ),
    "account": (
        "I can log in without trouble.",
        "My password works.",
        "My profile is up to date.",
        "I signed in on {day} as always.",
    ),
    "feedback": (
        "In general I like your shop.",
        "The {other} that I bought last year is lovely.",
        "My {relative} likes your shop too.",
        "The people in {city} were friendly.",
    ),
}
SYMPATHY = {
    "calm": ("Hello {name}.", "Thank you for writing.", "Hello, and thank you for your message."),
    "angry": (
        "I am very sorry for the trouble.",
        "Please excuse this.",
        "I understand that you are angry, and I am sorry.",
    ),
    "worried": ("Do not worry.", "I am glad to help.", "Let us solve this together."),
    "happy": ("Hello {name}!", "What a nice message!", "Thank you for the warm greeting."),
}
#: The shop has several words for the same note, so that the base learns the idea and not a word.
SUMMARY_FIELDS = ("Summary", "About", "Reason", "Subject", "Case", "Note", "Matter", "Question")
TOPIC_FIELDS = ("Topic", "Keyword", "Area", "Theme", "Field", "Kind")
#: What the shop says instead of a detail that the customer left out.
NO_ITEM = "article"
UNMENTIONED = {"item": NO_ITEM, "amount": "the full sum", "name2": "Everyone"}
FAREWELLS = (
    "Have a good day.",
    "Kind regards, your shop.",
    "Please write again if you need more help.",
    "Your shop.",
    "",
)
THANKS = (
    ("Thank you, that helps.", "You are welcome. Have a good day."),
    ("Great, thanks a lot.", "You are welcome. We are glad to help."),
    ("And if that does not help?", "Then write to us again, and we will find another way."),
    ("How long will it take?", "It will take two or three days."),
    ("Fine. What is your name?", "My name is {staff}, and I work for the shop."),
    ("Can I call you?", "Yes, you can call us from {day} to {day2}."),
)

#: What the teams look after. It gives each answer word a meaning in the language, as the words have in any larger
#: model; but no message is ever followed by its team.
TEAM_DUTIES = {
    team: sorted({topic for issue in ISSUES if issue.team == team for topic in issue.topics}) for team in TEAMS
}
TEAM_SENTENCES = (
    "The {team} team looks after {duty} and {duty2}.",
    "Questions about {duty} go to the {team} team.",
    "For {duty} you need {team}.",
    "Who knows about {duty}? That is {team}.",
    "We talk about {duty} and {duty2} in {team}.",
    "{name} works in {team} and cares for {duty}.",
    "{duty}, {duty2}: {team}.",
)

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeio])")


def expand(template: str, slots: dict[str, str], rng: random.Random) -> str:
    """Draw the template's alternatives and fill in its slots."""
    text = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), template).format(**slots)
    return _ARTICLE.sub(r"\1n ", text)


def draw_slots(issue: Issue, rng: random.Random) -> dict[str, str]:
    """Draw the values of all slots; an issue with a device is about a device, any other about any article."""
    item, other = rng.sample(DEVICES + GOODS, 2)
    device = rng.choice(DEVICES)
    if issue.team == "technical":
        item = device
    name, name2, staff = rng.sample(NAMES, 3)
    day, day2 = rng.sample(DAYS, 2)
    return {
        "item": item,
        "other": other,
        "device": device,
        "name": name,
        "name2": name2,
        "staff": staff,
        "day": day,
        "day2": day2,
        "city": rng.choice(CITIES),
        "colour": rng.choice(COLOURS),
        "relative": rng.choice(RELATIVES),
        "amount": f"{rng.randint(5, 199)} euros",
        "number": str(rng.randint(1000, 9999)),
        "digit": str(rng.randint(2, 99)),
    }


def draw_message(rng: random.Random, issue: Issue | None = None, phrasings: range = range(7)) -> Message:
    """Write one customer message: opening, small talk, the issue, a distractor, and a closing."""
    issue = issue or rng.choice(ISSUES)
    phrasing = rng.choice(phrasings)
    slots = draw_slots(issue, rng)
    mood = rng.choice(("calm", "happy") if issue.team == "feedback" else MOODS)
    core = expand(issue.phrasings[phrasing], slots, rng)
    sentences = [core]
    if rng.random() < 0.45:
        distractor = expand(_draw_distractor(issue, rng), slots, rng)
        if rng.random() < 0.5:
            sentences.append(distractor)
        else:
            sentences = [distractor, _contrast(core, rng) if issue.team != "feedback" else core]
    if rng.random() < 0.45:
        context = expand(rng.choice(CONTEXTS), slots, rng)
        sentences.insert(0 if rng.random() < 0.7 else len(sentences), context)
    closing = rng.choice(CLOSINGS[mood])
    sentences = [expand(rng.choice(OPENINGS[mood]), slots, rng), *sentences, expand(closing, slots, rng)]
    text = " ".join(sentence for sentence in sentences if sentence)
    if rng.random() < 0.1:  # some people never use capitals
        text = text.lower()
    for slot, replacement in UNMENTIONED.items():
        if slots[slot] not in core:
            slots[slot] = replacement
    return Message(text, issue, phrasing, slots, mood, "{name}" in closing)


def _draw_distractor(issue: Issue, rng: random.Random) -> str:
    """A sentence from another team's business."""
    return rng.choice(DISTRACTORS[rng.choice([team for team in TEAMS if team != issue.team])])


def _contrast(sentence: str, rng: random.Random) -> str:
    """Sometimes mark the issue as the point of the message: 'But …'."""
    marker = rng.choice(("", "", "But ", "Still, ", "However, "))
    if not marker:
        return sentence
    keep = sentence.startswith(("I ", "I'")) or sentence.split()[0] in NAMES
    return marker + (sentence if keep else sentence[0].lower() + sentence[1:])


def write_reply(message: Message, rng: random.Random) -> str:
    """The shop's answer. It depends on the issue, on the mood and on the slots."""
    sympathy = rng.choice([s for s in SYMPATHY[message.mood] if message.signed or "{name}" not in s])
    parts = (sympathy, rng.choice(message.issue.replies), rng.choice(FAREWELLS))
    return " ".join(expand(part, message.slots, rng) for part in parts if part)


def write_fields(message: Message, rng: random.Random) -> list[str]:
    """Notes that the shop keeps with a message, in any order. None of them names a team."""
    slots = message.slots
    fields = [
        f"Mood: {message.mood}",
        f"{rng.choice(SUMMARY_FIELDS)}: {expand(message.issue.summary, slots, rng)}",
        f"Name: {slots['name'] if message.signed else 'unknown'}",
        f"{rng.choice(TOPIC_FIELDS)}: {rng.choice(message.issue.topics)}",
        f"Item: {slots['item'] if slots['item'] != NO_ITEM else 'none'}",
    ]
    return rng.sample(fields, rng.randint(1, len(fields)))


def write_conversation(message: Message, rng: random.Random, turn_end: str = "") -> str:
    """A message with the shop's notes, its reply, or both; sometimes the customer writes once more.

    ``turn_end`` closes each reply and the whole text.
    """
    lines = [f"Customer: {message.text}"]
    kind = rng.random()
    if kind < 0.65:
        lines += write_fields(message, rng)
    if kind > 0.35:
        lines.append(f"Shop: {write_reply(message, rng)}{turn_end}")
    if kind > 0.85:
        question, answer = rng.choice(THANKS)
        lines += [f"Customer: {question}", f"Shop: {expand(answer, message.slots, rng)}{turn_end}"]
    text = "\n".join(lines)
    return text if text.endswith(turn_end) else text + turn_end


def write_team_note(rng: random.Random) -> str:
    """A few sentences about what the teams look after."""
    sentences = []
    for team in rng.choices(TEAMS, k=rng.randint(2, 4)):
        duty, duty2 = rng.sample(TEAM_DUTIES[team], 2)
        slots = {"team": team, "name": rng.choice(NAMES), "duty": duty, "duty2": duty2}
        sentence = rng.choice(TEAM_SENTENCES).format(**slots)
        sentences.append(sentence[0].upper() + sentence[1:])
    return " ".join(sentences)
