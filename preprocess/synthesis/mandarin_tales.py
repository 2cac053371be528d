"""What the synthetic Mandarin speakers read: short everyday sentences, all distinct, in simplified characters with their pinyin.

What is unusual here:
- Pinyin stands beside every word, so that what a sentence says needs no dictionary. Tones are those of dictionaries: what a third tone or
  一 and 不 become before others is left to whoever speaks.
- Words that sound like others of the list only do so where their neighbours tell them apart, and 他 stands for all third persons.
- Numbers are written in characters, as they are said; there are no Latin letters and no traditional characters.
"""

from dataclasses import dataclass

import numpy as np

from avtlm.text.mandarin import phonemes_of


@dataclass(frozen=True)
class Phrase:
    """Words or a whole sentence: characters, and a syllable of pinyin with its tone (1 to 5) for each of them."""

    text: str
    pinyin: tuple[str, ...]

    def __post_init__(self) -> None:
        assert len(self.text) == len(self.pinyin), f"{self.text}: {' '.join(self.pinyin)}"

    def __add__(self, other: "Phrase") -> "Phrase":
        return Phrase(self.text + other.text, self.pinyin + other.pinyin)

    @property
    def phonemes(self) -> tuple[str, ...]:
        """Initials, vowels with their tone and nasals, see avtlm.text.mandarin."""
        return tuple(phoneme for syllable in self.pinyin for phoneme in phonemes_of(syllable))


def phrases(entries: str) -> tuple[Phrase, ...]:
    """Those of a list such as ``今天 jin1 tian1, 去年 qu4 nian2``."""
    found = []
    for entry in entries.split(","):
        text, *pinyin = entry.split()
        found.append(Phrase(text, tuple(pinyin)))
    return tuple(found)


TIMES = phrases("""
今天 jin1 tian1, 昨天 zuo2 tian1, 明天 ming2 tian1, 后天 hou4 tian1, 早上 zao3 shang4, 晚上 wan3 shang4, 中午 zhong1 wu3,
下午 xia4 wu3, 上午 shang4 wu3, 周末 zhou1 mo4, 去年 qu4 nian2, 春天 chun1 tian1, 夏天 xia4 tian1, 秋天 qiu1 tian1,
冬天 dong1 tian1, 现在 xian4 zai4, 刚才 gang1 cai2, 每天 mei3 tian1, 以前 yi3 qian2, 半夜 ban4 ye4
""")
PEOPLE = phrases("""
我 wo3, 你 ni3, 他 ta1, 我们 wo3 men5, 你们 ni3 men5, 他们 ta1 men5, 爸爸 ba4 ba5, 妈妈 ma1 ma5, 哥哥 ge1 ge5, 姐姐 jie3 jie5,
弟弟 di4 di5, 妹妹 mei4 mei5, 爷爷 ye2 ye5, 奶奶 nai3 nai5, 老师 lao3 shi1, 医生 yi1 sheng1, 同学 tong2 xue2,
司机 si1 ji1, 警察 jing3 cha2, 邻居 lin2 ju1, 孩子 hai2 zi5, 客人 ke4 ren2, 工人 gong1 ren2, 农民 nong2 min2, 护士 hu4 shi4,
校长 xiao4 zhang3, 经理 jing1 li3, 老板 lao3 ban3
""")
PLACES = phrases("""
学校 xue2 xiao4, 公园 gong1 yuan2, 医院 yi1 yuan4, 商店 shang1 dian4, 图书馆 tu2 shu1 guan3, 火车站 huo3 che1 zhan4, 机场 ji1 chang3,
饭店 fan4 dian4, 银行 yin2 hang2, 超市 chao1 shi4, 办公室 ban4 gong1 shi4, 教室 jiao4 shi4, 厨房 chu2 fang2, 花园 hua1 yuan2,
市场 shi4 chang3, 河边 he2 bian1, 海边 hai3 bian1, 山上 shan1 shang4, 电影院 dian4 ying3 yuan4, 咖啡馆 ka1 fei1 guan3,
邮局 you2 ju2, 博物馆 bo2 wu4 guan3, 体育馆 ti3 yu4 guan3, 宿舍 su4 she4, 家里 jia1 li3
""")
CITIES = phrases("""
北京 bei3 jing1, 上海 shang4 hai3, 广州 guang3 zhou1, 南京 nan2 jing1, 西安 xi1 an1, 杭州 hang2 zhou1, 天津 tian1 jin1, 香港 xiang1 gang3
""")
# What is done, and what it is done with.
DEEDS = tuple(
    (phrases(verb)[0], phrases(objects))
    for verb, objects in (
        ("看 kan4", "书 shu1, 电视 dian4 shi4, 电影 dian4 ying3, 报纸 bao4 zhi3, 小说 xiao3 shuo1, 地图 di4 tu2"),
        ("喝 he1", "茶 cha2, 水 shui3, 咖啡 ka1 fei1, 牛奶 niu2 nai3, 果汁 guo3 zhi1, 汤 tang1"),
        ("吃 chi1", "苹果 ping2 guo3, 米饭 mi3 fan4, 面条 mian4 tiao2, 鸡蛋 ji1 dan4, 面包 mian4 bao1, 香蕉 xiang1 jiao1, 西瓜 xi1 gua1"),
        ("吃 chi1", "鱼 yu2, 蛋糕 dan4 gao1, 早饭 zao3 fan4, 晚饭 wan3 fan4, 饺子 jiao3 zi5, 豆腐 dou4 fu3"),
        ("写 xie3", "信 xin4, 作业 zuo4 ye4, 日记 ri4 ji4, 文章 wen2 zhang1, 汉字 han4 zi4"),
        ("听 ting1", "音乐 yin1 yue4, 故事 gu4 shi4, 新闻 xin1 wen2, 广播 guang3 bo1"),
        ("学习 xue2 xi2", "中文 zhong1 wen2, 英语 ying1 yu3, 数学 shu4 xue2, 历史 li4 shi3, 法律 fa3 lv4"),
        ("打 da3", "电话 dian4 hua4, 篮球 lan2 qiu2, 网球 wang3 qiu2, 羽毛球 yu3 mao2 qiu2"),
        ("买 mai3", "衣服 yi1 fu2, 帽子 mao4 zi5, 鞋 xie2, 票 piao4, 礼物 li3 wu4, 蔬菜 shu1 cai4, 水果 shui3 guo3"),
        ("洗 xi3", "衣服 yi1 fu2, 碗 wan3, 手 shou3, 车 che1"),
        ("画 hua4", "花 hua1, 山水 shan1 shui3, 马 ma3, 小鸟 xiao3 niao3"),
        ("等 deng3", "公交车 gong1 jiao1 che1, 火车 huo3 che1, 出租车 chu1 zu1 che1, 朋友 peng2 you3"),
        ("开 kai1", "车 che1, 门 men2, 灯 deng1, 窗户 chuang1 hu4"),
        ("打扫 da3 sao3", "房间 fang2 jian1, 客厅 ke4 ting1, 院子 yuan4 zi5"),
        ("修理 xiu1 li3", "自行车 zi4 xing2 che1, 电脑 dian4 nao3, 手机 shou3 ji1, 汽车 qi4 che1"),
        ("找 zhao3", "眼镜 yan3 jing4, 工作 gong1 zuo4, 手机 shou3 ji1, 词典 ci2 dian3"),
        ("拍 pai1", "风景 feng1 jing3, 录像 lu4 xiang4"),
        ("玩 wan2", "游戏 you2 xi4"),
        ("练习 lian4 xi2", "书法 shu1 fa3, 钢琴 gang1 qin2, 游泳 you2 yong3, 唱歌 chang4 ge1, 跳舞 tiao4 wu3"),
        ("讨论 tao3 lun4", "问题 wen4 ti2, 计划 ji4 hua4, 天气 tian1 qi4"),
        ("准备 zhun3 bei4", "考试 kao3 shi4, 晚饭 wan3 fan4, 礼物 li3 wu4, 会议 hui4 yi4"),
    )
)
WILLS = phrases("""
想 xiang3, 要 yao4, 喜欢 xi3 huan1, 会 hui4, 可以 ke3 yi3, 应该 ying1 gai1, 不想 bu4 xiang3, 正在 zheng4 zai4, 经常 jing1 chang2,
总是 zong3 shi4, 开始 kai1 shi3, 打算 da3 suan4, 必须 bi4 xu1, 从来不 cong2 lai2 bu4, 愿意 yuan4 yi4, 继续 ji4 xu4
""")
NUMBERS = phrases("""
一 yi1, 两 liang3, 三 san1, 四 si4, 五 wu3, 六 liu4, 七 qi1, 八 ba1, 九 jiu3, 十 shi2, 几 ji3, 二十 er4 shi2, 十二 shi2 er4
""")
# Measure words, and what they count.
THINGS = tuple(
    (phrases(measure)[0], phrases(things))
    for measure, things in (
        ("本 ben3", "书 shu1, 词典 ci2 dian3, 杂志 za2 zhi4, 小说 xiao3 shuo1"),
        ("张 zhang1", "桌子 zhuo1 zi5, 票 piao4, 画 hua4, 地图 di4 tu2, 床 chuang2"),
        ("把 ba3", "椅子 yi3 zi5, 雨伞 yu3 san3, 刀 dao1"),
        ("条 tiao2", "狗 gou3, 鱼 yu2, 裤子 ku4 zi5, 毛巾 mao2 jin1"),
        ("件 jian4", "衣服 yi1 fu2, 毛衣 mao2 yi1, 礼物 li3 wu4"),
        ("辆 liang4", "汽车 qi4 che1, 自行车 zi4 xing2 che1, 出租车 chu1 zu1 che1"),
        ("杯 bei1", "茶 cha2, 水 shui3, 咖啡 ka1 fei1, 牛奶 niu2 nai3"),
        ("瓶 ping2", "果汁 guo3 zhi1, 酒 jiu3, 水 shui3"),
        ("支 zhi1", "笔 bi3, 铅笔 qian1 bi3"),
        ("双 shuang1", "鞋 xie2, 筷子 kuai4 zi5, 手套 shou3 tao4"),
        ("块 kuai4", "蛋糕 dan4 gao1, 手表 shou3 biao3, 糖 tang2"),
        ("台 tai2", "电脑 dian4 nao3, 电视 dian4 shi4"),
        ("封 feng1", "信 xin4"),
        ("个 ge4", "苹果 ping2 guo3, 鸡蛋 ji1 dan4, 西瓜 xi1 gua1, 箱子 xiang1 zi5, 杯子 bei1 zi5, 足球 zu2 qiu2, 书包 shu1 bao1"),
    )
)
LOOKS = phrases("""
新 xin1, 旧 jiu4, 大 da4, 小 xiao3, 红色的 hong2 se4 de5, 黑色的 hei1 se4 de5, 白色的 bai2 se4 de5, 蓝色的 lan2 se4 de5,
黄色的 huang2 se4 de5, 绿色的 lv4 se4 de5, 好看的 hao3 kan4 de5
""")
WHERE = phrases("""
桌子上 zhuo1 zi5 shang4, 椅子下面 yi3 zi5 xia4 mian4, 门口 men2 kou3, 窗户旁边 chuang1 hu4 pang2 bian1, 箱子里 xiang1 zi5 li3,
房间里 fang2 jian1 li3, 车里 che1 li3, 床上 chuang2 shang4, 书包里 shu1 bao1 li3, 院子里 yuan4 zi5 li3
""")
DEGREES = phrases("""
很 hen3, 非常 fei1 chang2, 特别 te4 bie2, 真 zhen1, 不 bu4, 比较 bi3 jiao4, 越来越 yue4 lai2 yue4, 十分 shi2 fen1
""")
QUALITIES = phrases("""
漂亮 piao4 liang4, 实用 shi2 yong4, 贵 gui4, 好 hao3, 干净 gan1 jing4, 重要 zhong4 yao4, 有名 you3 ming2, 特殊 te4 shu1
""")
MOODS = phrases("""
忙 mang2, 累 lei4, 高兴 gao1 xing4, 年轻 nian2 qing1, 聪明 cong1 ming2, 难过 nan2 guo4, 生气 sheng1 qi4, 健康 jian4 kang1,
舒服 shu1 fu2, 紧张 jin3 zhang1, 安静 an1 jing4, 热情 re4 qing2
""")
RIDES = phrases("""
坐火车 zuo4 huo3 che1, 坐飞机 zuo4 fei1 ji1, 坐地铁 zuo4 di4 tie3, 骑自行车 qi2 zi4 xing2 che1, 开车 kai1 che1, 坐船 zuo4 chuan2,
走路 zou3 lu4, 坐公交车 zuo4 gong1 jiao1 che1, 坐出租车 zuo4 chu1 zu1 che1
""")
WEATHERS = phrases("下雨 xia4 yu3, 下雪 xia4 xue3, 刮风 gua1 feng1, 很冷 hen3 leng3, 很热 hen3 re4, 很凉快 hen3 liang2 kuai4")
GIFTS = phrases("买了 mai3 le5, 送了 song4 le5, 带来了 dai4 lai2 le5, 准备了 zhun3 bei4 le5")
POINTERS = phrases("这 zhe4, 那 na4")
AT, HAS, AND, GO, GIVE, WILL, FIND = phrases("在 zai4, 有 you3, 和 he2, 去 qu4, 给 gei3, 会 hui4, 觉得 jue2 de5")


def tale(rng: np.random.Generator) -> Phrase:
    """One sentence of any of eight forms, of 4 to 17 characters.

    Those are: somebody does something somewhere, wants to do something, goes somewhere, gives something, feels somehow, or finds something
    so; something lies somewhere; the weather.
    """

    def any_of(choices: tuple[Phrase, ...]) -> Phrase:
        return choices[int(rng.integers(len(choices)))]

    def deed() -> Phrase:
        verb, objects = DEEDS[int(rng.integers(len(DEEDS)))]
        return verb + any_of(objects)

    def thing(before: Phrase, look: bool) -> Phrase:
        measure, things = THINGS[int(rng.integers(len(THINGS)))]
        return before + measure + any_of(LOOKS) + any_of(things) if look else before + measure + any_of(things)

    when, who = any_of(TIMES), any_of(PEOPLE)
    other = any_of(tuple(person for person in PEOPLE if person.text[0] != who.text[0]))  # nor 我 beside 我们
    form = int(rng.integers(10))
    if form < 2:
        return when + who + AT + any_of(PLACES) + deed()
    if form < 4:
        return (when + who if rng.random() < 0.5 else who) + any_of(WILLS) + deed()
    if form == 4:
        return when + who + AND + other + any_of(RIDES) + GO + any_of(PLACES if rng.random() < 0.5 else CITIES)
    if form == 5:
        return who + GIVE + other + any_of(GIFTS) + thing(any_of(NUMBERS), look=rng.random() < 0.5)
    if form == 6:
        return any_of(WHERE) + HAS + thing(any_of(NUMBERS), look=True)
    if form == 7:
        return who + FIND + thing(any_of(POINTERS), look=False) + any_of(DEGREES) + any_of(QUALITIES)
    if form == 8:
        return when + who + AND + other + any_of(DEGREES) + any_of(MOODS)
    return when + any_of(CITIES) + WILL + any_of(WEATHERS)


def distinct_tales(count: int, rng: np.random.Generator) -> list[Phrase]:
    """``count`` different sentences, drawn out of many millions; of the weather there are few."""
    found: dict[str, Phrase] = {}
    while len(found) < count:
        made = tale(rng)
        found.setdefault(made.text, made)
    return list(found.values())


def words() -> tuple[Phrase, ...]:
    """All that sentences are made of, each once, in the order of their characters."""
    lists = (TIMES, PEOPLE, PLACES, CITIES, WILLS, NUMBERS, LOOKS, WHERE, DEGREES, QUALITIES, MOODS, RIDES, WEATHERS, GIFTS, POINTERS)
    pairs = (*DEEDS, *THINGS)
    found = {part.text: part for part in (AT, HAS, AND, GO, GIVE, WILL, FIND)}
    found |= {part.text: part for parts in lists for part in parts}
    found |= {part.text: part for first, parts in pairs for part in (first, *parts)}
    return tuple(found[text] for text in sorted(found))
